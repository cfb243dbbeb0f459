use super::*;
use crate::packet::{Fragment, PacketKind};
use crate::verdict::Verdict;
use crate::{Direction, Generation, RuleId, Side};

fn tcp(sport: u16, dport: u16) -> PacketMeta {
    let (src, dst) = (0xC633_6409, 0x0A05_0607);
    PacketMeta {
        src,
        dst,
        sport,
        dport,
        kind: PacketKind::Tcp,
        proto: 6,
        side: Side::Outside,
        len: 60,
        ..PacketMeta::default()
    }
}

fn drop_of(reason: Reason, nic: u32) -> Verdict {
    Verdict::of(reason, NicSlot(nic))
}

fn record(pkt: &PacketMeta, verdict: &Verdict, wanted: u16) -> Record {
    Record { wanted, ..Record::new(pkt, verdict, Generation(3)) }
}

fn all(filter: Filter) -> Watch {
    Watch { filter, one_in: 1, captures: false }
}

#[test]
fn a_full_ring_of_decisions_loses_the_newest_and_counts_them() {
    let (mut told, mut read) = decisions(4, 1000);
    let record = |n| Record { index: n, ..record(&tcp(1, 2), &drop_of(Reason::NoRule, 1), 0) };
    for lap in 0..3u64 {
        for n in 0..6 {
            told.tell(record(lap * 10 + n), 5);
        }
        told.records.publish();
        let mut seen = Vec::new();
        read.records.take(99, |record| seen.push(record.index));
        assert_eq!(seen, (lap * 10..lap * 10 + 4).collect::<Vec<_>>());
        assert_eq!((read.counts.told(), read.counts.lost()), (4 * (lap + 1), 2 * (lap + 1)));
    }
}

#[test]
fn decisions_of_a_second_are_bounded_and_the_next_second_has_its_own() {
    let (mut told, mut read) = decisions(64, 3);
    for at in [0, 1, 2, 3, SECOND - 1, SECOND, SECOND + 1] {
        told.tell(record(&tcp(1, 2), &drop_of(Reason::NoRule, 1), 0), at);
    }
    told.records.publish();
    assert_eq!(read.records.take(99, drop), 5);
    assert_eq!((read.counts.told(), read.counts.lost()), (5, 2));
    // A clock that ran back begins no second.
    assert!(told.admit(0) && !told.admit(0));
}

#[test]
fn each_condition_of_a_filter_is_one() {
    let (pkt, verdict) = (tcp(40_000, 22), Verdict { rule: RuleId(7), ..drop_of(Reason::Denied, 5) });
    let host = |addr| Some(Addresses { v6: false, first: addr, last: addr });
    let fits = |filter: Filter| filter.fits(&pkt, &verdict, None);
    let one = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    assert!(fits(Filter::default()));
    assert!(fits(Filter { remote: host(0xC633_6409), local: host(0x0A05_0607), ..Filter::default() }));
    assert!(!fits(Filter { remote: host(0x0A05_0607), ..Filter::default() }));
    assert!(!fits(Filter { local: host(0xC633_6409), ..Filter::default() }));
    let of_v6 = Addresses { v6: true, first: 0, last: u128::MAX };
    assert!(!fits(Filter { remote: Some(of_v6), ..Filter::default() }));
    for (yes, no) in [
        (one(|f| f.nic = Some(NicSlot(5))), one(|f| f.nic = Some(NicSlot(6)))),
        (one(|f| f.port = Some(22)), one(|f| f.port = Some(23))),
        (one(|f| f.port = Some(40_000)), one(|f| f.port = Some(0))),
        (one(|f| f.protocol = Some(6)), one(|f| f.protocol = Some(17))),
        (one(|f| f.passes = Some(false)), one(|f| f.passes = Some(true))),
        (one(|f| f.reasons = Some(1 << Reason::Denied as u32)), one(|f| f.reasons = Some(1))),
        (one(|f| f.rules = Some([RuleId(2), RuleId(7)].into())), one(|f| f.rules = Some([RuleId(2)].into()))),
        (one(|f| f.direction = Some(Direction::Inbound)), one(|f| f.direction = Some(Direction::Outbound))),
        (one(|f| f.side = Some(Side::Outside)), one(|f| f.side = Some(Side::Inside))),
    ] {
        assert!(fits(yes.clone()), "{yes:?}");
        assert!(!fits(no.clone()), "{no:?}");
    }
    // What passes because it is only observed passes.
    let observed = Verdict { observed: true, ..verdict };
    assert!(one(|f| f.passes = Some(true)).fits(&pkt, &observed, None));
    // Whose nobody's is has no direction; what is not IP has neither protocol nor address; a later
    // fragment no port.
    let nobody = Verdict::nobody(Reason::UnknownDestination);
    assert!(!one(|f| f.direction = Some(Direction::Inbound)).fits(&pkt, &nobody, None));
    let arp = PacketMeta { kind: PacketKind::Arp, ..PacketMeta::default() };
    let anywhere = Addresses { v6: false, first: 0, last: u128::MAX };
    assert!(!Filter { remote: Some(anywhere), ..Filter::default() }.fits(&arp, &nobody, None));
    assert!(!one(|f| f.protocol = Some(0)).fits(&arp, &nobody, None));
    let later =
        PacketMeta { fragment: Fragment::Later, kind: PacketKind::LaterFragment, sport: 22, ..pkt.clone() };
    assert!(!one(|f| f.port = Some(22)).fits(&later, &verdict, None));
}

#[test]
fn one_in_so_many_of_those_that_fit_is_told_and_each_watch_counts_its_own() {
    let some = Watch { one_in: 3, ..all(Filter { port: Some(22), ..Filter::default() }) };
    let (mut watch_set, mut read) = watch_set(vec![some, all(Filter::default())], 0, 64, 0);
    let verdict = drop_of(Reason::NoRule, 1);
    for n in 0..12u16 {
        let pkt = tcp(1000 + n, if n % 2 == 0 { 22 } else { 80 });
        let wanted = watch_set.wanted(&pkt, &verdict, None);
        watch_set.tell(record(&pkt, &verdict, wanted), &[]);
    }
    watch_set.records.publish();
    let mut wanted = Vec::new();
    read.records.take(99, |record| wanted.push(record.wanted));
    // Of six with that port, the third and the sixth.
    assert_eq!(wanted, [2, 2, 2, 2, 3, 2, 2, 2, 2, 2, 3, 2]);
    assert_eq!((read.counts[0].told(), read.counts[1].told()), (2, 12));
}

#[test]
fn bytes_come_whole_up_to_the_snap_length_or_not_at_all() {
    let capture = |filter| Watch { captures: true, ..all(filter) };
    let no_bytes = Filter { port: Some(22), ..Filter::default() };
    let watches = vec![capture(Filter::default()), all(no_bytes)];
    // Room for five pieces: two frames and a half.
    let (mut watch_set, mut read) = watch_set(watches, 100, 8, 320);
    let verdict = drop_of(Reason::NoRule, 1);
    let frame: Vec<u8> = (0..200).collect();
    for port in [80, 80, 80, 22] {
        let pkt = tcp(1000, port);
        let wanted = watch_set.wanted(&pkt, &verdict, None);
        watch_set.tell(record(&pkt, &verdict, wanted), &frame);
    }
    watch_set.pieces.as_mut().unwrap().publish();
    watch_set.records.publish();
    let mut seen = Vec::new();
    read.records.take(99, |record| seen.push((record.wanted, record.captured)));
    // The third has no room and is nobody else's; the fourth is told to who wants no bytes.
    assert_eq!(seen, [(1, 100), (1, 100), (2, 0)]);
    assert_eq!((read.counts[0].told(), read.counts[0].lost()), (2, 2));
    assert_eq!((read.counts[1].told(), read.counts[1].lost()), (1, 0));
    let mut bytes = Vec::new();
    read.pieces.as_mut().unwrap().take(chunks_for(100), |piece| bytes.extend(piece));
    assert_eq!(bytes[..100], frame[..100]);
}

#[test]
fn what_is_switched_off_gives_its_rings_back_and_records_nothing() {
    let mut recorder = Recorder::default();
    assert!(!recorder.is_on());
    let (first, _read) = watch_set(vec![all(Filter::default())], 0, 8, 0);
    assert!(recorder.watch(Some(first)).is_none());
    assert!(recorder.is_on());
    assert!(recorder.watch(None).is_some());
    assert!(!recorder.is_on());
    let (told, _read) = decisions(8, 1);
    let mut recorder = Recorder::new(Some(told));
    recorder.watch(None);
    assert!(recorder.is_on(), "decisions go on");
}
