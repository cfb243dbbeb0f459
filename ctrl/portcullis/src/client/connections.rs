//! `connections`: listed, counted, disconnected and watched, by what they have in common.

use std::process::ExitCode;
use std::time::Duration;

use control::api::types::Count;
use hyper::Method;

use super::http::{encoded, request};
use super::{listing, parsed, print_answer};
use crate::cli::{self, ConnectionsCommand, Output, Selection};
use crate::failure::{Failure, print};

/// `connections`
pub fn connections(args: &cli::Connections) -> Result<ExitCode, Failure> {
    match &args.command {
        ConnectionsCommand::List { selection, limit, after } => {
            let limit = limit.map(|limit| format!("&limit={limit}"));
            let after = after.as_ref().map(|after| format!("&after={}", encoded(after)));
            list(selection, &[limit, after].into_iter().flatten().collect::<String>())
        }
        ConnectionsCommand::Count(selection) => {
            let body = ask(selection, Method::GET, "/count", "")?;
            print_answer(&body, selection.output, |body| Ok(format!("{}\n", parsed::<Count>(body)?.count)))
        }
        ConnectionsCommand::Flush { selection, all } => {
            if !*all && query(selection).is_empty() {
                return Err(Failure::input(
                    "no filter is given; allowed: --nic, --remote and others, or --all for every connection",
                ));
            }
            let body = ask(selection, Method::POST, "/flush", if *all { "&all=true" } else { "" })?;
            print_answer(&body, selection.output, |body| {
                Ok(format!("{} connections disconnected\n", parsed::<Count>(body)?.count))
            })
        }
        ConnectionsCommand::Watch { selection, interval } => {
            watch(selection, Duration::from_secs_f64(*interval))
        }
    }
}

fn list(selection: &Selection, page: &str) -> Result<ExitCode, Failure> {
    let body = ask(selection, Method::GET, "", page)?;
    match page {
        "" => listing::connections(&body, selection.output),
        _ => listing::page_of_connections(&body, selection.output),
    }
}

/// Again and again, until it is interrupted or the appliance is gone.
fn watch(selection: &Selection, interval: Duration) -> Result<ExitCode, Failure> {
    loop {
        if selection.output == Output::Table {
            // Home, and what was there is gone.
            print("\x1b[H\x1b[2J", false);
        }
        list(selection, "")?;
        std::thread::sleep(interval);
    }
}

fn ask(selection: &Selection, method: Method, path: &str, more: &str) -> Result<Vec<u8>, Failure> {
    let target = format!("/v1/connections{path}?{}{more}", query(selection));
    let answer = request(&selection.client, method, &target, Vec::new())?.success();
    Ok(answer.map_err(|failure| failure.reworded(as_option))?.to_vec())
}

/// A refusal that begins with a parameter's name, with the option's in its place: `local_port: …` is `--local-port: …` here.
fn as_option(refusal: String) -> String {
    const PARAMETERS: [&str; 15] = [
        "nic",
        "vpc",
        "local",
        "remote",
        "local_port",
        "remote_port",
        "protocol",
        "state",
        "opened",
        "tombstone",
        "rule",
        "since",
        "worker",
        "limit",
        "after",
    ];
    match refusal.split_once(':') {
        Some((name, rest)) if PARAMETERS.contains(&name) => format!("--{}:{rest}", name.replace('_', "-")),
        _ => refusal,
    }
}

fn query(selection: &Selection) -> String {
    let texts = [
        ("nic", &selection.nic),
        ("vpc", &selection.vpc),
        ("local", &selection.local),
        ("remote", &selection.remote),
        ("protocol", &selection.protocol),
        ("state", &selection.state),
        ("opened", &selection.opened),
        ("rule", &selection.rule),
    ];
    let texts = texts.into_iter().filter_map(|(key, value)| Some((key, encoded(value.as_ref()?))));
    let others = [
        ("local_port", selection.local_port.map(|port| port.to_string())),
        ("remote_port", selection.remote_port.map(|port| port.to_string())),
        ("tombstone", selection.tombstone.map(|on| on.to_string())),
        ("since", selection.since.map(|generation| generation.to_string())),
        ("worker", selection.worker.map(|worker| worker.to_string())),
    ];
    let others = others.into_iter().filter_map(|(key, value)| Some((key, value?)));
    texts.chain(others).map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
}
