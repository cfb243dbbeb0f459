#include "shim.h"

#include <stddef.h>

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "libdpdk is older than 22.11"
#endif

#define SAME(field) \
	_Static_assert(offsetof(struct shim_mbuf, field) == offsetof(struct rte_mbuf, field), \
		       "struct rte_mbuf has moved its field " #field)

_Static_assert(sizeof(struct rte_mbuf) == 128, "struct rte_mbuf is not of 128 bytes");
_Static_assert(sizeof(struct shim_mbuf) == 128, "struct shim_mbuf is not of 128 bytes");
_Static_assert(_Alignof(struct shim_mbuf) == _Alignof(struct rte_mbuf), "struct rte_mbuf has another alignment");
SAME(buf_addr);
SAME(data_off);
SAME(refcnt);
SAME(nb_segs);
SAME(port);
SAME(ol_flags);
SAME(packet_type);
SAME(pkt_len);
SAME(data_len);
SAME(vlan_tci);
SAME(hash);
SAME(vlan_tci_outer);
SAME(buf_len);
SAME(pool);
SAME(next);

const uint64_t SHIM_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
const uint64_t SHIM_RX_VLAN = RTE_MBUF_F_RX_VLAN;
const uint64_t SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
const uint64_t SHIM_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
const uint64_t SHIM_RSS_WANTED =
	RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;

uint16_t shim_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, frames, n);
}

uint16_t shim_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, frames, n);
}

struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void shim_pktmbuf_free(struct rte_mbuf *m)
{
	rte_pktmbuf_free(m);
}

void shim_pktmbuf_free_bulk(struct rte_mbuf **frames, unsigned int n)
{
	rte_pktmbuf_free_bulk(frames, n);
}

char *shim_pktmbuf_prepend(struct rte_mbuf *m, uint16_t len)
{
	return rte_pktmbuf_prepend(m, len);
}

char *shim_pktmbuf_append(struct rte_mbuf *m, uint16_t len)
{
	return rte_pktmbuf_append(m, len);
}

int shim_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

int shim_pktmbuf_linearize(struct rte_mbuf *m)
{
	return rte_pktmbuf_linearize(m);
}

int shim_errno(void)
{
	return rte_errno;
}

unsigned int shim_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t shim_rdtsc(void)
{
	return rte_rdtsc();
}

uint64_t shim_tsc_hz(void)
{
	return rte_get_tsc_hz();
}
