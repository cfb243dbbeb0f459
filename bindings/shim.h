/*
 * What bindgen reads: the public headers, and one plain function for each static inline of DPDK
 * that we call. Declarations only; the bodies in shim.c are one call each.
 */
#ifndef PORTCULLIS_SHIM_H
#define PORTCULLIS_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_telemetry.h>
#include <rte_version.h>

/*
 * The fields of `struct rte_mbuf` that we read and write, under names that don't change with DPDK's
 * anonymous unions. shim.c asserts that every offset, the size and the alignment are the same.
 */
struct shim_mbuf {
	void *buf_addr;
	uint64_t buf_iova;
	uint16_t data_off;
	uint16_t refcnt;
	uint16_t nb_segs;
	uint16_t port;
	uint64_t ol_flags;
	uint32_t packet_type;
	uint32_t pkt_len;
	uint16_t data_len;
	uint16_t vlan_tci;
	uint8_t hash[8];
	uint16_t vlan_tci_outer;
	uint16_t buf_len;
	struct rte_mempool *pool;
	struct shim_mbuf *next;
	uint64_t rest[7];
} __attribute__((aligned(64)));

/* Bursts: one call for up to 64 frames. */
uint16_t shim_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n);
uint16_t shim_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n);

/* Buffers. */
struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool);
int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, unsigned int n); /* all or none */
void shim_pktmbuf_free(struct rte_mbuf *m);
void shim_pktmbuf_free_bulk(struct rte_mbuf **frames, unsigned int n);
char *shim_pktmbuf_prepend(struct rte_mbuf *m, uint16_t len);
char *shim_pktmbuf_append(struct rte_mbuf *m, uint16_t len);
int shim_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
int shim_pktmbuf_linearize(struct rte_mbuf *m);

/* Whatever DPDK logs from now on goes to `sink`, a message at a time; 0, or -1 where that can't be. */
typedef void (*shim_log_sink)(uint32_t level, const char *text, size_t len);
int shim_log_to(shim_log_sink sink);

/* Threads, time and errors. */
int shim_errno(void);
bool shim_link(uint16_t port, uint32_t *mbps, bool *full_duplex); /* up? */
unsigned int shim_lcore_id(void);
uint64_t shim_rdtsc(void);
uint64_t shim_tsc_hz(void);

/* Macros of 64 bits, as constants that bindgen can evaluate. */
static const uint64_t SHIM_RX_VLAN = RTE_MBUF_F_RX_VLAN;
static const uint64_t SHIM_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t SHIM_MBUF_INDIRECT = RTE_MBUF_F_INDIRECT;
static const uint64_t SHIM_MBUF_EXTERNAL = RTE_MBUF_F_EXTERNAL;
static const uint64_t SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SHIM_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SHIM_RSS_WANTED = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;
static const uint32_t SHIM_LCORE_ANY = LCORE_ID_ANY;

#endif
