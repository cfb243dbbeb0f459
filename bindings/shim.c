#define _GNU_SOURCE /* fopencookie */
#include "shim.h"

#include <stddef.h>
#include <stdio.h>

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

int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, frames, n);
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

bool shim_link(uint16_t port, uint32_t *mbps, bool *full_duplex)
{
	struct rte_eth_link link = { 0 };

	if (rte_eth_link_get_nowait(port, &link) != 0)
		return false;
	*mbps = link.link_speed;
	*full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return link.link_status == RTE_ETH_LINK_UP;
}

static ssize_t write_log(void *sink, const char *text, size_t len)
{
	((shim_log_sink)sink)((uint32_t)rte_log_cur_msg_loglevel(), text, len);
	return (ssize_t)len;
}

int shim_log_to(shim_log_sink sink)
{
	const cookie_io_functions_t functions = { .write = write_log };
	FILE *stream = fopencookie((void *)sink, "w", functions);

	if (stream == NULL)
		return -1;
	return rte_openlog_stream(stream);
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
