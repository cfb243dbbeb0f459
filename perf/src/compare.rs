//! What `scripts/compare` puts side by side beyond the cycle cases: packets a second of every
//! program.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::floor::{Program, Rate, Setting, in_turn, median_rate};

/// Flows of the rate comparison.
const FLOWS: [u32; 4] = [1, 10_000, 100_000, 1_000_000];
/// Rules of the rate comparison.
const RULES: [u32; 4] = [1, 50, 250, 1_000];

/// Millions of packets a second: medians of rounds in turn.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub setting: Setting,
    /// Each program's rate, or why it has none.
    pub rates: Vec<(Program, Result<Rate, String>)>,
}

impl Row {
    /// Measures these programs, in turn, but for those that cannot be here.
    pub fn measure(
        (binary, directory): (&Path, &Path),
        programs: &[Program],
        setting: Setting,
        rounds: (u32, Duration),
    ) -> io::Result<Row> {
        let why_not = |program: &Program| program.missing().or_else(|| program.left_out(setting));
        let (out, on): (Vec<_>, Vec<_>) =
            programs.iter().map(|&program| (program, why_not(&program))).partition(|(_, why)| why.is_some());
        let on: Vec<Program> = on.into_iter().map(|(program, _)| program).collect();
        let measured = in_turn(binary, directory, &on, setting, rounds)?;
        Ok(Row::of(setting, programs, &on, &measured, &out))
    }

    fn of(
        setting: Setting,
        programs: &[Program],
        on: &[Program],
        measured: &[Vec<Rate>],
        out: &[(Program, Option<String>)],
    ) -> Row {
        let rate = |program: Program| match on.iter().position(|on| *on == program) {
            Some(n) => Ok(median_rate(&measured[n])),
            None => Err(out
                .iter()
                .find(|(out, _)| *out == program)
                .and_then(|(_, why)| why.clone())
                .unwrap_or_default()),
        };
        Row { setting, rates: programs.iter().map(|&program| (program, rate(program))).collect() }
    }

    /// A program's rate, if it has one.
    pub fn rate(&self, program: Program) -> Option<Rate> {
        self.rates.iter().find(|(one, _)| *one == program)?.1.as_ref().ok().copied()
    }

    /// The same in millions of packets a second, as measured.
    pub fn mpps(&self, program: Program) -> Option<f64> {
        self.rate(program).map(|rate| rate.mpps)
    }

    /// The appliance's rate as a multiple of another program's, as measured.
    pub fn ratio_to(&self, program: Program) -> Option<f64> {
        Some(self.mpps(Program::Portcullis)? / self.mpps(program)?)
    }

    /// The same if each had a core of its own. To the kernel only this is fair: where its source or
    /// others on the machine leave it part of the core, it forwards less than it could.
    pub fn ratio_per_core(&self, program: Program) -> Option<f64> {
        Some(self.rate(Program::Portcullis)?.per_core() / self.rate(program)?.per_core())
    }

    /// As JSON: null where there is no rate.
    pub fn json(&self) -> Value {
        let rates = self.rates.iter().map(|(program, rate)| {
            (program.name().to_owned(), rate.as_ref().map_or(Value::Null, |rate| hundredths(rate.mpps)))
        });
        Value::Object(rates.collect::<Map<_, _>>())
    }
}

/// The kernel's rates are below one: a tenth is too coarse.
fn hundredths(mpps: f64) -> Value {
    ((mpps * 100.0).round() / 100.0).into()
}

/// The rates, by flows and by rules.
pub struct Rates {
    /// 10,000 flows and 50 rules.
    pub usual: Row,
    /// Other numbers of flows and rules.
    pub others: Vec<Row>,
}

impl Rates {
    /// The usual setting and the floor alone.
    pub fn quick(binary: &Path, directory: &Path) -> io::Result<Rates> {
        let time = Duration::from_secs(2);
        let programs = [Program::Portcullis, Program::Testpmd];
        let usual = Row::measure((binary, directory), &programs, Setting::USUAL, (2, time))?;
        Ok(Rates { usual, others: Vec::new() })
    }

    /// Every program in every setting: so many rounds of the usual one, 2 at most of the others,
    /// and one where the memory for a million flows takes longer to get than everything else.
    pub fn whole(binary: &Path, directory: &Path, rounds: u32, time: Duration) -> io::Result<Rates> {
        let places = (binary, directory);
        let usual = Row::measure(places, &Program::ALL, Setting::USUAL, (rounds, time))?;
        let flows = FLOWS.map(|flows| Setting { flows, ..Setting::USUAL });
        let rules = RULES.map(|rules| Setting { rules, ..Setting::USUAL });
        let others = flows.into_iter().chain(rules).filter(|setting| *setting != Setting::USUAL);
        let others = others.map(|setting| {
            let rounds = if setting.flows < 1_000_000 { rounds.min(2) } else { 1 };
            Row::measure(places, &Program::ALL, setting, (rounds, time))
        });
        Ok(Rates { usual, others: others.collect::<io::Result<_>>()? })
    }

    /// Rates by flows, and by rules: those with the usual number of the other.
    pub fn by(&self, number: fn(&Setting) -> u32, other: fn(&Setting) -> u32) -> Vec<(u32, &Row)> {
        let all = self.others.iter().chain([&self.usual]);
        let alike = all.filter(|row| other(&row.setting) == other(&Setting::USUAL));
        let mut rows: Vec<_> = alike.map(|row| (number(&row.setting), row)).collect();
        rows.sort_by_key(|(number, _)| *number);
        rows
    }

    /// With 50 rules.
    pub fn by_flows(&self) -> Vec<(u32, &Row)> {
        self.by(|setting| setting.flows, |setting| setting.rules)
    }

    /// With 10,000 flows.
    pub fn by_rules(&self) -> Vec<(u32, &Row)> {
        self.by(|setting| setting.rules, |setting| setting.flows)
    }

    /// As JSON, by flows and by rules.
    pub fn json(&self) -> Value {
        let object = |rows: Vec<(u32, &Row)>| -> Value {
            Value::Object(rows.into_iter().map(|(number, row)| (number.to_string(), row.json())).collect())
        };
        serde_json::json!({ "flows": object(self.by_flows()), "rules": object(self.by_rules()) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 10 Mpps against 5, with a program that is left out.
    pub(crate) fn rates() -> Rates {
        let row = |setting| Row {
            setting,
            rates: vec![
                (Program::Portcullis, Ok(Rate { mpps: 10.0, core_share: 1.0 })),
                (Program::Ovs, Ok(Rate { mpps: 2.5, core_share: 0.5 })),
                (Program::Nftables, Err("not here".to_owned())),
            ],
        };
        let others = [(1, 50), (100_000, 50), (10_000, 1), (10_000, 250)];
        Rates {
            usual: row(Setting::USUAL),
            others: others.map(|(flows, rules)| row(Setting { flows, rules })).into(),
        }
    }

    #[test]
    fn rows_are_in_order_and_the_usual_one_is_in_both() {
        let rates = rates();
        let numbers = |rows: Vec<(u32, &Row)>| rows.into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(rates.by_flows()), [1, 10_000, 100_000]);
        assert_eq!(numbers(rates.by_rules()), [1, 50, 250]);
    }

    #[test]
    fn ratios_are_of_those_that_have_a_rate() {
        let row = rates().usual;
        assert_eq!((row.ratio_to(Program::Ovs), row.ratio_per_core(Program::Ovs)), (Some(4.0), Some(2.0)));
        assert_eq!(row.ratio_to(Program::Nftables), None);
        assert_eq!(row.ratio_to(Program::Testpmd), None);
        assert_eq!(row.json().to_string(), r#"{"nftables":null,"ovs":2.5,"portcullis":10.0}"#);
    }

    #[test]
    fn medians_go_to_the_program_that_they_are_of() {
        let rate = |mpps| Rate { mpps, core_share: 1.0 };
        let all = [Program::Portcullis, Program::Ovs, Program::Forwarding];
        let (on, out) =
            ([Program::Portcullis, Program::Forwarding], [(Program::Ovs, Some("gone".to_owned()))]);
        let row = Row::of(
            Setting::USUAL,
            &all,
            &on,
            &[vec![rate(3.0), rate(1.0), rate(2.0)], vec![rate(9.0)]],
            &out,
        );
        assert_eq!((row.mpps(Program::Portcullis), row.mpps(Program::Forwarding)), (Some(2.0), Some(9.0)));
        assert_eq!(row.rates[1].1.as_ref().err().map(String::as_str), Some("gone"));
    }
}
