//! An IPv6 address lies in its connection's entry as a digest alone.

use engine::conntrack::remote_digest;
use engine::{FlowIndex, Side};
use testkit::frame::{Build, udp};
use testkit::scenario::{Scenario, one, rule};

#[test]
fn an_ipv6_connection_does_not_answer_to_another_address_of_the_same_digest() {
    let policy = one(&[rule::IN]).replace("10.0.0.1", "\"2001:db8::1\"");
    let mut s = Scenario::new(&policy);
    let frame = udp("[2001:db8::9]:9", "[2001:db8::1]:53").frame();
    assert_eq!(s.burst(&[(Side::Outside, frame)]), ["new by web#0"]);
    let shard = s.firewall().shard();
    let (flow, there) = (FlowIndex(0), shard.remote(FlowIndex(0)));
    let key = shard.entry(flow).key();
    let other = there ^ (1 << 64 | 1);
    assert_eq!(remote_digest(other, key.meta), key.remote);
    // SAFETY: nothing is demanded without vectors, and with them the processor is asked.
    unsafe {
        assert_eq!(shard.find_hinted::<false>(0, &key, || there), Some(flow));
        assert_eq!(shard.find_hinted::<false>(0, &key, || other), None);
        if engine::cpu::has_v3() {
            assert_eq!(shard.find_hinted::<true>(0, &key, || there), Some(flow));
            assert_eq!(shard.find_hinted::<true>(0, &key, || other), None);
        }
    }
    let another = shard.key(key.addr, other, key.ports, key.meta as u8, true);
    assert_eq!(shard.find(&another), None);
}
