//! Flows by their numbers: which addresses and ports a flow has is computed, and computed back,
//! never stored.
//!
//! A pair of a server (inside) and a client (outside) has up to 31,744 flows, told apart by the
//! port of whoever opens them. Flow `f` is of server `f mod servers` and client `(f / servers) mod
//! clients`, and is that pair's number `k`. A flow that closes and opens again takes another port:
//! its ports are those that are `k` modulo the flows of a pair.

use engine::Side;

use crate::plan::{FLOOD_PORTS, FLOW_PORTS, From, Mode, NEW_PORTS, Plan, Versions, mix};
use crate::tag::Class;

/// What kind of flow it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// IPv6.
    pub v6: bool,
    /// UDP, else TCP.
    pub udp: bool,
    /// Who opens it.
    pub opener: Side,
}

/// Who a frame is between. Hosts are numbers from 0, see [`Flows::host_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The host inside.
    pub server: u32,
    /// Its port.
    pub inside_port: u16,
    /// The host outside.
    pub client: u32,
    /// Its port.
    pub outside_port: u16,
}

/// The arithmetic of a plan's flows.
#[derive(Clone, Debug)]
pub struct Flows {
    count: u32,
    servers: u32,
    clients: u32,
    /// Flows of one pair.
    pairs: u32,
    /// Ports that flows use: a multiple of `pairs`.
    span: u32,
    port: u16,
    denied_port: u16,
    versions: Versions,
    /// Of 65,536.
    udp: u32,
    from: From,
    stateful: bool,
}

impl Flows {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Flows {
        let pairs = plan.flows.div_ceil(plan.servers * plan.clients()).max(1);
        let ports = FLOW_PORTS.len() as u32;
        Flows {
            count: plan.flows,
            servers: plan.servers,
            clients: plan.clients(),
            pairs,
            span: ports - ports % pairs,
            port: plan.port,
            denied_port: plan.denied_port,
            versions: plan.versions,
            udp: (plan.udp * 65536.0).round() as u32,
            from: plan.from,
            stateful: plan.mode == Mode::Stateful,
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How often a flow may open before it uses a port again.
    pub fn generations(&self) -> u32 {
        self.span / self.pairs
    }

    /// The number of a host, as the low bits of its address: 1 for the first.
    #[inline]
    pub fn host_of(index: u32) -> u32 {
        index + 1
    }

    /// What kind a flow is. Spread by a hash, so that every server and client has all kinds.
    #[inline]
    pub fn kind(&self, flow: u32) -> Kind {
        let hash = flow.wrapping_mul(0x9E37_79B1);
        let hash = (hash ^ hash >> 15).wrapping_mul(0x85EB_CA77);
        let v6 = match self.versions {
            Versions::V4 => false,
            Versions::V6 => true,
            Versions::Both => hash >> 31 == 1,
        };
        let opener = match self.from {
            From::Outside => Side::Outside,
            From::Inside => Side::Inside,
            From::Both if self.stateful && hash >> 30 & 1 == 1 => Side::Inside,
            From::Both => Side::Outside,
        };
        Kind { v6, udp: hash >> 8 & 0xFFFF < self.udp, opener }
    }

    fn ends(&self, flow: u32, opener: Side, own: u16, service: u16) -> Ends {
        let (server, client) = (flow % self.servers, flow / self.servers % self.clients);
        let (inside_port, outside_port) = match opener {
            Side::Outside => (service, own),
            Side::Inside => (own, service),
        };
        Ends { server, inside_port, client, outside_port }
    }

    /// The ends of a flow that has opened `generation` times before.
    #[inline]
    pub fn of(&self, flow: u32, opener: Side, generation: u32) -> Ends {
        let number = flow / self.servers / self.clients;
        let place = (number + generation % self.generations() * self.pairs) as u16;
        self.ends(flow, opener, FLOW_PORTS.start + place, self.port)
    }

    /// As a flow's, but to the port that is denied.
    pub fn denied(&self, flow: u32, opener: Side) -> Ends {
        let ends = self.of(flow, opener, 0);
        match opener {
            Side::Outside => Ends { inside_port: self.denied_port, ..ends },
            Side::Inside => Ends { outside_port: self.denied_port, ..ends },
        }
    }

    /// Ends that no other frame had: the `number`th of them, modulo 32,768 for each pair of hosts.
    pub fn new_one(&self, number: u64, opener: Side) -> Ends {
        let pairs = u64::from(self.servers) * u64::from(self.clients);
        let own = (NEW_PORTS + (number / pairs % u64::from(65536 - NEW_PORTS)) as u32) as u16;
        self.ends((number % pairs) as u32, opener, own, self.port)
    }

    /// The `number`th SYN of a flood: from anywhere in the clients' network.
    pub fn flood(&self, number: u64, seed: u64, opener: Side) -> Ends {
        let random = mix(number ^ seed.rotate_left(32));
        let own = FLOOD_PORTS.start + (random >> 48) as u16 % FLOOD_PORTS.len() as u16;
        let ends = self.ends((random % u64::from(self.servers)) as u32, opener, own, self.port);
        match opener {
            Side::Outside => Ends { client: (random >> 16) as u32 % crate::plan::HOSTS, ..ends },
            Side::Inside => Ends { client: (random >> 16) as u32 % self.clients, ..ends },
        }
    }

    /// What these ends are of, and which side opened it. The flow is the one of its class, 0 for
    /// those without.
    #[inline]
    pub fn find(&self, ends: &Ends) -> Option<Found> {
        let Ends { server, inside_port, client, outside_port } = *ends;
        let (opener, own, service) = if inside_port < FLOOD_PORTS.start {
            (Side::Outside, outside_port, inside_port)
        } else {
            (Side::Inside, inside_port, outside_port)
        };
        if server >= self.servers || service != self.port && service != self.denied_port {
            return None;
        }
        let found = |class, flow, generation| Some(Found { class, opener, flow, generation });
        if service == self.port && FLOOD_PORTS.contains(&own) {
            return found(Class::Flood, 0, 0);
        }
        if client >= self.clients || own < FLOW_PORTS.start {
            return None;
        }
        if u32::from(own) >= NEW_PORTS {
            return found(Class::New, 0, 0);
        }
        let place = u32::from(own - FLOW_PORTS.start);
        let number = u64::from(place % self.pairs);
        let flow = (number * u64::from(self.clients) + u64::from(client)) * u64::from(self.servers)
            + u64::from(server);
        if flow >= u64::from(self.count) {
            return None;
        }
        let class = if service == self.denied_port { Class::Denied } else { Class::Flow };
        found(class, flow as u32, place / self.pairs)
    }
}

/// What the ends of a frame are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Why it was sent.
    pub class: Class,
    /// Which side opened it.
    pub opener: Side,
    /// The flow.
    pub flow: u32,
    /// How often it had opened before, modulo [`Flows::generations`].
    pub generation: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::plan::Spec;

    fn flows(flows: u32, servers: u32, clients: u32, from: From) -> Flows {
        let spec =
            Spec { flows, servers, clients: Some(clients), from, mode: Mode::Stateful, ..Spec::default() };
        Flows::new(&Plan::new(spec).unwrap())
    }

    #[test]
    fn every_flow_is_found_by_its_ends_in_every_generation() {
        for from in [From::Outside, From::Inside, From::Both] {
            let flows = flows(5000, 3, 7, from);
            assert_eq!(flows.generations(), FLOW_PORTS.len() as u32 / 239);
            let mut seen = HashSet::new();
            for generation in [0, 1, 2, flows.generations() - 1] {
                for flow in 0..5000 {
                    let Kind { opener, .. } = flows.kind(flow);
                    let ends = flows.of(flow, opener, generation);
                    assert_eq!(
                        flows.find(&ends),
                        Some(Found { class: Class::Flow, opener, flow, generation })
                    );
                    assert!(seen.insert(format!("{ends:?}")), "{ends:?} twice");
                }
            }
        }
    }

    #[test]
    fn other_classes_are_found_as_what_they_are() {
        let flows = flows(50, 4, 5, From::Outside);
        for opener in [Side::Inside, Side::Outside] {
            for number in 0..1000 {
                let class = |ends| flows.find(&ends).map(|found| (found.class, found.opener));
                assert_eq!(class(flows.flood(number, 9, opener)), Some((Class::Flood, opener)));
                assert_eq!(class(flows.new_one(number, opener)), Some((Class::New, opener)));
                let flow = number as u32 % 50;
                let found = flows.find(&flows.denied(flow, opener)).unwrap();
                assert_eq!((found.class, found.flow), (Class::Denied, flow));
            }
        }
        let stranger = Ends { server: 4, inside_port: 80, client: 0, outside_port: 2000 };
        assert_eq!(flows.find(&stranger), None);
        assert_eq!(flows.find(&Ends { server: 0, inside_port: 81, ..stranger }), None);
        assert_eq!(flows.find(&Ends { server: 0, client: 5, ..stranger }), None);
    }

    #[test]
    fn kinds_are_spread_evenly() {
        let spec = Spec {
            flows: 100_000,
            udp: 0.25,
            versions: Versions::Both,
            from: From::Both,
            sizes: vec![100],
            mode: Mode::Stateful,
            ..Spec::default()
        };
        let flows = Flows::new(&Plan::new(spec).unwrap());
        let share = |is: fn(Kind) -> bool| (0..100_000).filter(|flow| is(flows.kind(*flow))).count();
        for (count, expected) in [
            (share(|kind| kind.v6), 50_000),
            (share(|kind| kind.udp), 25_000),
            (share(|kind| kind.opener == Side::Inside), 50_000),
            (share(|kind| kind.udp && kind.v6 && kind.opener == Side::Inside), 6250),
        ] {
            assert!(count.abs_diff(expected) < 1000, "{count} instead of {expected}");
        }
    }
}
