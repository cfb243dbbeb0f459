//! Commands that talk to the running appliance.

mod advise;
mod connections;
mod edits;
mod extcap;
mod http;
mod listing;
mod packets;
pub mod table;
pub mod told;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use control::api::types::{Explanation, Question, Receipt, Record, State};
use control::api::{POLICY, types};
use control::source::{input_name, read_input};
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::cli::{self, Output, Subject};
use crate::failure::{self, Failure, print};
pub use advise::advise;
pub use connections::connections;
pub use edits::{group, nic, rule};
pub use extcap::extcap;
use http::{HttpReply, encoded, request, request_if};
pub use packets::{as_option, capture, moment, trace, why};

/// Exit status of what was refused, and of `diff` where there are differences.
pub const REFUSED: u8 = 2;

/// An answer's body, as text for people.
type Table = fn(&[u8]) -> Result<String, Failure>;
/// Prints an answer's body.
type Printer = fn(&[u8], Output) -> Result<ExitCode, Failure>;

/// `apply`
pub fn apply(args: &cli::Apply) -> Result<ExitCode, Failure> {
    let mut target = target_of(&args.file);
    if args.allow_empty {
        target.push_str("&allow_empty=true");
    }
    change(Method::POST, &target, document(&args.file)?, &args.edit)
}

/// `rollback`
pub fn rollback(args: &cli::Rollback) -> Result<ExitCode, Failure> {
    let target = format!("/v1/rollback?generation={}", args.generation);
    change(Method::POST, &target, Vec::new(), &args.edit)
}

/// Asks for a change with these wishes, and prints what became of it. `target` has a query already.
fn change(method: Method, target: &str, body: Vec<u8>, edit: &cli::Edit) -> Result<ExitCode, Failure> {
    let wishes = [
        edit.dry_run.then(|| "&dry_run=true".to_owned()),
        edit.confirm.map(|seconds| format!("&confirm={seconds}")),
        edit.max_disconnect.map(|most| format!("&max_disconnect={most}")),
    ];
    let target = wishes.into_iter().flatten().fold(target.to_owned(), |target, wish| target + &wish);
    print_change(request_if(&edit.client, method, &target, body, edit.if_generation)?, edit.output)
}

/// `confirm`
pub fn confirm(args: &cli::Asked) -> Result<ExitCode, Failure> {
    let body = request(&args.client, Method::POST, "/v1/confirm", Vec::new())?.success()?;
    print_answer(&body, args.output, |body| {
        let record: Record = parsed(body)?;
        Ok(format!("generation {} is confirmed and stays\n", record.generation))
    })
}

/// `history`
pub fn history(args: &cli::Asked) -> Result<ExitCode, Failure> {
    let body = request(&args.client, Method::GET, "/v1/history", Vec::new())?.success()?;
    print_answer(&body, args.output, |body| Ok(table::history(&parsed::<Vec<Record>>(body)?)))
}

/// `wait`
pub fn wait(args: &cli::Wait) -> Result<ExitCode, Failure> {
    let target = format!("/v1/generations/{}?wait=acknowledged", args.generation);
    let body = request(&args.client, Method::GET, &target, Vec::new())?.success()?;
    print_answer(&body, args.output, |body| Ok(table::history(&[parsed::<Record>(body)?])))
}

/// A receipt, or the preview that a guard refused.
fn print_change(answer: HttpReply, output: Output) -> Result<ExitCode, Failure> {
    if answer.status == StatusCode::CONFLICT
        && let Some(preview) = answer.refusal().preview
    {
        print_receipt(&preview, output)?;
        return Err(Failure::input(answer.refusal().error));
    }
    let receipt: Receipt = parsed(&answer.success()?)?;
    receipt.warnings.iter().for_each(failure::warn);
    print_receipt(&receipt, output)?;
    Ok(ExitCode::SUCCESS)
}

/// `diff`
pub fn diff(args: &cli::Diff) -> Result<ExitCode, Failure> {
    let target = target_of(&args.file) + "&dry_run=true&allow_empty=true";
    // 2 says that there are differences; whatever goes wrong is 1.
    let asked =
        document(&args.file).and_then(|body| request(&args.client, Method::POST, &target, body)?.success());
    let receipt: Receipt = parsed(&asked.map_err(Failure::into_runtime)?)?;
    receipt.warnings.iter().for_each(failure::warn);
    print_receipt(&receipt, args.output)?;
    Ok(if receipt.state == State::Unchanged { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// `export`
pub fn export(args: &cli::Export) -> Result<ExitCode, Failure> {
    let target =
        args.generation.map_or_else(|| POLICY.to_owned(), |of| format!("/v1/generations/{of}/policy"));
    let body = request(&args.client, Method::GET, &target, Vec::new())?.success()?;
    print(&String::from_utf8_lossy(&body), false);
    Ok(ExitCode::SUCCESS)
}

/// `explain`, by the policy in force
pub fn explain(args: &cli::Client, question: &Question) -> Result<Explanation, Failure> {
    let body = serde_json::to_vec(question).map_err(Failure::runtime)?;
    let answer = request(args, Method::POST, "/v1/explain", body)?.success();
    parsed(&answer.map_err(|failure| {
        failure.reworded(|text| match text.strip_prefix("frame:") {
            Some(rest) => format!("--packet:{rest}"),
            None => text,
        })
    })?)
}

/// `show`
pub fn show(args: &cli::Show) -> Result<ExitCode, Failure> {
    match args.watch {
        Some(seconds) => watch::watch(args, Duration::from_secs_f64(seconds)),
        None => show_once(args),
    }
}

fn show_once(args: &cli::Show) -> Result<ExitCode, Failure> {
    let (path, print): (&str, Printer) = match args.subject {
        Subject::Nics => return print_pages(args, "nics", listing::nics),
        Subject::Groups => return print_pages(args, "groups", listing::groups),
        Subject::Rules => return print_pages(args, "rules", listing::rules),
        Subject::Connections => ("connections", listing::connections),
        Subject::Counters => ("counters", |body, output| {
            print_answer(body, output, |body| Ok(table::counters(&parsed(body)?)))
        }),
        Subject::Workers => ("workers", |body, output| {
            print_answer(body, output, |body| Ok(table::workers(&parsed::<Vec<types::Worker>>(body)?)))
        }),
        Subject::Health => return health(args),
        Subject::Snapshot => ("snapshot", |body, output| {
            print_answer(body, output, |body| Ok(table::snapshot(&parsed(body)?)))
        }),
        Subject::Restart => {
            ("restart", |body, output| print_answer(body, output, |body| Ok(table::restart(&parsed(body)?))))
        }
    };
    let answer = request(&args.client, Method::GET, &format!("/v1/{path}"), Vec::new())?;
    let HttpReply { notice, .. } = &answer;
    if let Some(notice) = notice {
        failure::print(&format!("portcullis: not strict: {notice}\n"), true);
    }
    print(&answer.success()?, args.output)
}

/// Asks for a listing page by page, so that the appliance never holds more than one.
fn print_pages(args: &cli::Show, what: &str, print: Printer) -> Result<ExitCode, Failure> {
    const PAGE: usize = 5000;
    let (mut all, mut after) = (vec![b'['], String::new());
    loop {
        let answer =
            request(&args.client, Method::GET, &format!("/v1/{what}?limit={PAGE}{after}"), Vec::new())?;
        if let Some(notice) = answer.notice.as_ref().filter(|_| after.is_empty()) {
            failure::print(&format!("portcullis: not strict: {notice}\n"), true);
        }
        let body = answer.success()?;
        let names: Vec<listing::Named> = parsed(&body)?;
        let text = body.strip_prefix(b"[").and_then(|body| body.strip_suffix(b"]")).unwrap_or(&body);
        if all.len() > 1 && !names.is_empty() {
            all.push(b',');
        }
        all.extend_from_slice(text);
        match names.last() {
            // Of rules, groups are whole.
            Some(listing::Named { name }) if names.len() >= PAGE => {
                after = format!("&after={}", encoded(name))
            }
            _ => break,
        }
    }
    all.push(b']');
    print(&all, args.output)
}

/// `show health`; what has failed is an answer, too.
fn health(args: &cli::Show) -> Result<ExitCode, Failure> {
    let answer = request(&args.client, Method::GET, "/healthz", Vec::new())?;
    let body =
        if answer.status == StatusCode::SERVICE_UNAVAILABLE { answer.body } else { answer.success()? };
    print_answer(&body, args.output, |body| Ok(table::health(&parsed(body)?)))
}

/// An answer as it came, or for people.
fn print_answer(body: &[u8], output: Output, table: Table) -> Result<ExitCode, Failure> {
    match output {
        Output::Table => print(&table(body)?, false),
        Output::Json => print(&format!("{}\n", String::from_utf8_lossy(body)), false),
    }
    Ok(ExitCode::SUCCESS)
}

fn target_of(file: &Path) -> String {
    format!("{POLICY}?file={}", encoded(&input_name(file)))
}

/// The document's bytes; `-` is standard input.
fn document(file: &Path) -> Result<Vec<u8>, Failure> {
    read_input(file).map(String::into_bytes).map_err(Failure::input)
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::runtime(format!("the appliance's answer is not understood (another version?): {error}"))
    })
}

fn print_receipt(receipt: &Receipt, output: Output) -> Result<(), Failure> {
    let text = match output {
        Output::Table => table::receipt(receipt),
        Output::Json => serde_json::to_string(receipt).map_err(Failure::runtime)? + "\n",
    };
    print(&text, false);
    Ok(())
}
