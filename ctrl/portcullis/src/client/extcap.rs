//! `extcap`: Wireshark's way to capture from a program ([its protocol](https://www.wireshark.org/docs/wsdg_html_chunked/ChCaptureExtcap.html)).
//! Linked into Wireshark's extcap folder, this program is called without a subcommand: see [`crate::cli::with_extcap`].

use std::fs::File;
use std::process::ExitCode;

use control::trace::FilterQuery;

use super::packets::frames;
use crate::cli;
use crate::failure::{Failure, print};

/// The one interface.
const INTERFACE: &str = "portcullis";

/// Its options: how they are called, what they are shown as, their type, and what is said of them.
const OPTIONS: [(&str, &str, &str, &str); 18] = [
    ("--socket", "Socket", "string", "The appliance's socket"),
    ("--url", "URL", "string", "An appliance over TCP instead, such as https://fw1.example:9696"),
    ("--token-file", "Token file", "string", "A file that holds the token to show over TCP"),
    ("--ca", "CA file", "string", "Certificates (PEM) to trust instead of the system's"),
    ("--verdict", "Verdict", "selector", "Frames with this verdict"),
    ("--nic", "NIC", "string", "Judged for this NIC: its name, or project/name"),
    ("--direction", "Direction", "selector", "Of a NIC, this way"),
    ("--reason", "Reason", "string", "For this reason, or one of several with commas between them"),
    ("--group", "Group", "string", "Decided by a rule of this group"),
    ("--rule", "Rule", "string", "Decided by this rule: group#position, or its id"),
    ("--remote", "Remote", "string", "An address of the other side, or a prefix"),
    ("--local", "Local", "string", "An address on the instances' side, or a prefix"),
    ("--port", "Port", "unsigned", "A port of either end"),
    ("--protocol", "Protocol", "string", "By name or number"),
    ("--from", "From", "selector", "Which side frames come from"),
    ("--rate", "One in", "unsigned", "One of so many of these frames"),
    ("--snaplen", "Snap length", "unsigned", "Bytes of a frame at most"),
    ("--count", "Count", "unsigned", "End after so many"),
];

/// What selectors offer.
const CHOICES: [(&str, [&str; 2]); 3] = [
    ("--verdict", ["drop", "pass"]),
    ("--direction", ["inbound", "outbound"]),
    ("--from", ["inside", "outside"]),
];

/// The command.
pub fn extcap(args: &cli::Extcap) -> Result<ExitCode, Failure> {
    if args.extcap_interfaces {
        print(&interfaces(), false);
        return Ok(ExitCode::SUCCESS);
    }
    let interface = args.extcap_interface.as_deref().unwrap_or(INTERFACE);
    if interface != INTERFACE {
        return Err(Failure::input(format!("--extcap-interface: {interface}; allowed: {INTERFACE}")));
    }
    if args.extcap_dlts {
        print("dlt {number=1}{name=EN10MB}{display=Ethernet}\n", false);
    } else if args.extcap_config {
        print(&config(&args.client.socket.display().to_string()), false);
    } else if args.capture {
        return capture(args);
    } else if args.extcap_capture_filter.as_deref().is_some_and(|filter| !filter.is_empty()) {
        // Whatever is said here says that the filter is none.
        print(&format!("{NO_FILTER}\n"), false);
    }
    Ok(ExitCode::SUCCESS)
}

const NO_FILTER: &str = "capture filters are not taken here: choose by the interface's options";

fn interfaces() -> String {
    format!(
        "extcap {{version={}}}{{help=https://www.wireshark.org/docs/man-pages/extcap.html}}{{display=Portcullis}}\n\
         interface {{value={INTERFACE}}}{{display=Portcullis: frames with their verdicts}}\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn config(socket: &str) -> String {
    let mut text = String::new();
    for (number, (call, display, kind, tooltip)) in OPTIONS.iter().enumerate() {
        let default = if *call == "--socket" { format!("{{default={socket}}}") } else { String::new() };
        text += &format!(
            "arg {{number={number}}}{{call={call}}}{{display={display}}}{{type={kind}}}{{tooltip={tooltip}}}{default}\n"
        );
        let Some((_, choices)) = CHOICES.iter().find(|(of, _)| of == call) else { continue };
        text += &format!("value {{arg={number}}}{{value=}}{{display=any}}{{default=true}}\n");
        for choice in choices {
            text +=
                &format!("value {{arg={number}}}{{value={choice}}}{{display={choice}}}{{default=false}}\n");
        }
    }
    text
}

fn capture(args: &cli::Extcap) -> Result<ExitCode, Failure> {
    if args.extcap_capture_filter.as_deref().is_some_and(|filter| !filter.is_empty()) {
        return Err(Failure::input(format!("--extcap-capture-filter: {NO_FILTER}")));
    }
    let fifo =
        args.fifo.as_ref().ok_or_else(|| Failure::input("--fifo: missing; required beside --capture"))?;
    let file = File::options().write(true).open(fifo);
    let mut file = file.map_err(|error| Failure::runtime(format!("{}: {error}", fifo.display())))?;
    // Wireshark gives what its dialog has, also where nothing is chosen.
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let asked = args.packets.asked();
    let asked = FilterQuery {
        nic: said(asked.nic),
        remote: said(asked.remote),
        local: said(asked.local),
        protocol: said(asked.protocol),
        verdict: said(asked.verdict),
        reason: said(asked.reason),
        group: said(asked.group),
        rule: said(asked.rule),
        direction: said(asked.direction),
        from: said(asked.from),
        rate: args.rate.filter(|rate| *rate != 0),
        snaplen: args.snaplen.filter(|length| *length != 0),
        count: args.count.filter(|count| *count != 0),
        ..asked
    };
    frames(&args.client, &asked, || (), &mut file)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_that_is_offered_is_one_that_is_taken() {
        use clap::CommandFactory;
        let command = cli::Cli::command();
        let extcap = command.find_subcommand("extcap").unwrap();
        for (call, _, kind, _) in OPTIONS {
            let name = call.trim_start_matches("--");
            assert!(extcap.get_arguments().any(|arg| arg.get_long() == Some(name)), "{call}");
            assert_eq!(CHOICES.iter().any(|(of, _)| *of == call), kind == "selector", "{call}");
        }
        assert_eq!(config("/x").lines().filter(|line| line.starts_with("arg ")).count(), OPTIONS.len());
    }

    #[test]
    fn arguments_without_a_subcommand_are_extcaps_if_they_look_so() {
        let with = |args: &[&str]| {
            let args = ["portcullis"].iter().chain(args).map(std::ffi::OsString::from).collect();
            cli::with_extcap(args).get(1).map(|arg| arg.to_string_lossy().into_owned())
        };
        assert_eq!(with(&["--extcap-interfaces", "--extcap-version=4.0"]).as_deref(), Some("extcap"));
        assert_eq!(with(&["--capture", "--extcap-interface", "portcullis"]).as_deref(), Some("extcap"));
        assert_eq!(with(&["capture", "--write", "x"]).as_deref(), Some("capture"));
        assert_eq!(with(&["--version"]).as_deref(), Some("--version"));
        assert_eq!(with(&[]), None);
    }
}
