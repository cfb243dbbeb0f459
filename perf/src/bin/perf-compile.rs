//! Compilation at full size: 10,000 NICs, each with an ordered set of 5 groups of its own out of
//! 2,000, of 50 rules each. How long reading and committing such a policy takes, and at most how
//! much memory. A table, or JSON.

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

use clap::Parser;
use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, parse_policy};
use perf::classify::sets::Set;
use perf::commits::report::{peak_resident_mb, resident_mb};
use serde_json::json;
use testkit::rng::Rng;

/// Time and memory to compile 10,000 different ordered sets of 5 groups.
#[derive(Parser)]
struct Options {
    /// NICs, each with an ordered set of groups of its own.
    #[arg(long, default_value_t = 10_000)]
    sets: u32,
    /// Groups to choose from.
    #[arg(long, default_value_t = 2_000)]
    groups: u32,
    /// Rules a group.
    #[arg(long, default_value_t = 50)]
    rules: usize,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

const GROUPS_A_NIC: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let text = document(&options);
    let limits = Limits { rules_per_group: options.rules, groups_per_nic: GROUPS_A_NIC };
    let start = Instant::now();
    let parsed = parse_policy(&text, "policy", &limits)?;
    let (read, parsed_mb) = (start.elapsed(), resident_mb());
    let mut committer = Committer::new(Config::default());
    let start = Instant::now();
    let commit = committer.commit(parsed.policy, 0)?.ok_or("nothing was committed")?;
    let (committed, resident, peak) = (start.elapsed(), resident_mb(), peak_resident_mb());
    let policies = commit.snapshot.policies.len();
    if policies != options.sets as usize {
        return Err(format!("{policies} sets of rules were compiled, not {}", options.sets).into());
    }
    let (read, committed) = (read.as_secs_f64(), committed.as_secs_f64());
    if options.json {
        println!(
            "{}",
            json!({ "sets": policies, "read_s": read, "commit_s": committed, "document_mb": text.len() as f64 / 1e6,
                "read_mb": parsed_mb, "resident_mb": resident, "peak_mb": peak })
        );
        return Ok(());
    }
    println!("{:<44}{:>10}", "sets compiled", policies);
    println!("{:<44}{:>10.2}", "document, MB", text.len() as f64 / 1e6);
    println!("{:<44}{:>10.3}", "reading and validating it, s", read);
    println!("{:<44}{:>10.3}", "committing it, all compilation included, s", committed);
    println!("{:<44}{:>10.0}", "resident when read, MB", parsed_mb);
    println!("{:<44}{:>10.0}", "resident with the snapshot, MB", resident);
    println!("{:<44}{:>10.0}", "resident at most, MB", peak);
    Ok(())
}

fn document(options: &Options) -> String {
    let mut text = "vpcs: [{name: prod, segment: {untagged: true}}]\nsecurity_groups:\n".to_owned();
    // Writing to a string does not fail.
    for group in 0..options.groups {
        let _ = writeln!(text, "  - name: g{group}\n    rules:");
        for rule in &Set::new(options.rules, u64::from(group)).rules {
            let _ = writeln!(text, "      - {{direction: inbound, {}}}", rule.written());
        }
    }
    text += "nics:\n";
    let (mut rng, mut seen) = (Rng::new(1), HashSet::new());
    while seen.len() < options.sets as usize {
        let mut groups = Vec::with_capacity(GROUPS_A_NIC);
        while groups.len() < GROUPS_A_NIC {
            let group = rng.below(options.groups as usize);
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let names: Vec<String> = groups.iter().map(|group| format!("g{group}")).collect();
        if seen.insert(groups) {
            let [_, a, b, c] = (seen.len() as u32).to_be_bytes();
            let _ = writeln!(
                text,
                "  - {{name: n{}, vpc: prod, addresses: [10.{a}.{b}.{c}], security_groups: [{}]}}",
                seen.len(),
                names.join(", ")
            );
        }
    }
    text
}
