//! What a start would refuse of a valid configuration, found before anything starts: `run` and `check` ask here alike.
//!
//! What only this machine at this moment lacks (an interface, a PCI device) is no fault: a configuration may be checked where it
//! does not run, and before its ports are there.

use std::path::Path;

use control::api::refused_files;
use control::config::{Checked, FlowTarget};
use control::similar_names;
use control::source::Diagnostic;

use super::cores::Cores;
use super::mtu;

/// What was found.
#[derive(Debug, Default)]
pub struct PreflightReport {
    /// `run` refuses these.
    pub faults: Vec<Diagnostic>,
    /// Likely mistakes.
    pub warnings: Vec<Diagnostic>,
    /// What is not there now, and may be when it runs.
    pub absent: Vec<Diagnostic>,
}

impl PreflightReport {
    /// Of the text alone.
    pub fn of_text(checked: &Checked) -> PreflightReport {
        PreflightReport { warnings: checked.warnings.clone(), ..PreflightReport::default() }
    }
}

/// What of this machine is asked: another, in tests of what asks.
pub struct MachineView<'h> {
    /// `/sys`.
    pub sys: &'h Path,
    /// The MTU of a kernel's interface.
    pub mtu_of: &'h dyn Fn(&str) -> Option<u16>,
}

/// Looks at the configuration and at the files that it names.
pub fn look(checked: &Checked) -> PreflightReport {
    let mut found = PreflightReport::of_text(checked);
    let here = MachineView { sys: Path::new("/sys"), mtu_of: &mtu::mtu_of };
    cores(checked, &mut found);
    ports(checked, &here, &mut found);
    sizes(checked, &here, &mut found);
    files(checked, &mut found);
    found
}

/// Whether the workers' cores are there.
pub fn cores(checked: &Checked, found: &mut PreflightReport) {
    for (place, message) in Cores::missing(&checked.config) {
        found.faults.push(checked.fault(&format!("workers.cores[{place}]"), message));
    }
}

/// Whether MTUs agree and rings hold them. Sizes are only known of interfaces that are there.
pub fn sizes(checked: &Checked, here: &MachineView<'_>, found: &mut PreflightReport) {
    let config = &checked.config;
    let sizes = mtu::resolve_by(config, here.mtu_of).and_then(|mtus| mtu::buffer_sizing(config, &mtus));
    if let Err(message) = sizes {
        found.faults.push(checked.fault("wire", message));
    }
}

/// Whether all files that the configuration names can be what they are for.
pub fn files(checked: &Checked, found: &mut PreflightReport) {
    let config = &checked.config;
    flow_logs(checked, found);
    for (key, message) in refused_files(&config.api) {
        found.faults.push(checked.fault(&format!("api.{key}"), message));
    }
    let page = config.stats_page();
    if std::fs::symlink_metadata(&page).is_ok_and(|there| !there.is_file()) {
        let key = if config.stats.page.is_some() { "stats.page" } else { "api.socket" };
        let message = format!("the stats page {} is there and is no file", page.display());
        found.faults.push(checked.fault(key, message));
    }
    // The environment of whoever checks is likely that of whoever runs.
    if let Err(message) = super::log_level(config.log.level) {
        found.faults.push(checked.fault("log.level", message));
    }
}

/// Whether flow logs can be where they should.
fn flow_logs(checked: &Checked, found: &mut PreflightReport) {
    for (place, log) in checked.config.flow_logs.iter().enumerate() {
        let FlowTarget::File { path, .. } = &log.target else { continue };
        let at = format!("flow_log[{place}].path");
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        if path.is_dir() {
            found
                .faults
                .push(checked.fault(&at, format!("{} is a directory; allowed: a file", path.display())));
        } else if !directory.exists() {
            let message = format!("the directory {} is not there (yet)", directory.display());
            found.absent.push(checked.fault(&at, message));
        } else if !directory.is_dir() {
            let message = format!("{} is no directory; allowed: a file in one", directory.display());
            found.faults.push(checked.fault(&at, message));
        }
    }
}

/// Whether DPDK will have the wires' ports.
pub fn ports(checked: &Checked, here: &MachineView<'_>, found: &mut PreflightReport) {
    let config = &checked.config;
    let args = &config.eal.args;
    let made: Vec<&str> = mtu::vdevs(args).collect();
    let has_pci = !args.iter().any(|arg| arg == "--no-pci");
    for (place, wire) in config.wires.iter().enumerate() {
        for (side, port) in [("inside", &wire.inside), ("outside", &wire.outside)] {
            let path = format!("wire[{place}].{side}");
            if made.contains(&port.as_str()) {
                let absent =
                    mtu::interface(args, port).filter(|interface| (here.mtu_of)(interface).is_none());
                if let Some(interface) = absent {
                    let message = format!("the interface {interface} of {port} is not there (yet)");
                    found.absent.push(checked.fault(&path, message));
                }
            } else if is_pci_address(port) && has_pci {
                let device = here.sys.join("bus/pci/devices").join(port);
                if !device.exists() {
                    found.absent.push(checked.fault(&path, format!("no PCI device {port} is there (yet)")));
                }
            } else if !has_pci || is_vdev_name(port) {
                let near = similar_names::listed(&similar_names::nearest(
                    port,
                    made.iter().map(|name| (*name).to_owned()),
                ));
                let message = format!("{port:?} is made by no --vdev of eal.args; {near}");
                found.faults.push(checked.fault(&path, message));
            }
        }
    }
    let is_wired = |name: &&&str| config.wires.iter().any(|w| w.inside == ***name || w.outside == ***name);
    for unused in made.iter().filter(|name| !is_wired(name)) {
        if !config.wires.is_empty() {
            found.warnings.push(checked.fault("eal.args", format!("the vdev {unused} is on no wire")));
        }
    }
}

/// `DOMAIN:BUS:DEVICE.FUNCTION`, the domain being optional.
pub fn is_pci_address(port: &str) -> bool {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((slot, function)) = port.rsplit_once('.') else { return false };
    let parts: Vec<&str> = slot.split(':').collect();
    (2..=3).contains(&parts.len()) && parts.into_iter().all(is_hex) && is_hex(function)
}

/// DPDK's drivers of virtual devices all begin like this.
fn is_vdev_name(port: &str) -> bool {
    port.starts_with("net_") || port.starts_with("eth_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::config::check_config;

    /// Faults, and all else.
    fn found(args: &str, inside: &str, outside: &str) -> (Vec<String>, Vec<String>) {
        let toml = format!(
            "[eal]\nargs = [{args}]\n[[wire]]\nname = \"w\"\ninside = \"{inside}\"\noutside = \"{outside}\"\n[workers]\ncores = [0]\n"
        );
        let PreflightReport { faults, warnings, absent } = look(&check_config(&toml, "c").unwrap());
        let told = |all: Vec<Diagnostic>| all.iter().map(ToString::to_string).collect();
        (told(faults), told([warnings, absent].concat()))
    }

    #[test]
    fn a_port_that_no_vdev_makes_is_a_fault_with_near_names() {
        let args = "\"--no-pci\", \"--vdev=net_null0\", \"--vdev\", \"net_null1,no-rx=1\"";
        assert_eq!(found(args, "net_null0", "net_null1"), (vec![], vec![]));
        let (faults, warnings) = found(args, "net_null0", "net_nul1");
        assert_eq!(
            faults,
            [
                "c:6:11: wire[0].outside: \"net_nul1\" is made by no --vdev of eal.args; near names: net_null1, net_null0"
            ]
        );
        assert_eq!(warnings, ["c:2:8: eal.args: the vdev net_null1 is on no wire"]);
        let (faults, _) = found("", "0000:01:00.0", "net_null1");
        assert_eq!(faults.len(), 1, "without --no-pci a PCI device may be there: {faults:?}");
    }

    #[test]
    fn a_flow_log_is_a_file_in_a_directory() {
        let look = |path: &str| {
            let toml = format!("[[flow_log]]\nkind = \"json\"\npath = \"{path}\"\n[workers]\ncores = [0]\n");
            let PreflightReport { faults, absent, .. } = look(&check_config(&toml, "c").unwrap());
            let told = |all: Vec<Diagnostic>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
            (told(faults), told(absent))
        };
        assert_eq!(look("/tmp/flow.json"), (vec![], vec![]));
        assert_eq!(look("flow.json"), (vec![], vec![]));
        let is_directory = "c:3:8: flow_log[0].path: /tmp is a directory; allowed: a file";
        assert_eq!(look("/tmp"), (vec![is_directory.to_owned()], vec![]));
        let absent = "c:3:8: flow_log[0].path: the directory /no/such is not there (yet)";
        assert_eq!(look("/no/such/flow.json"), (vec![], vec![absent.to_owned()]));
        let (faults, _) = look("/dev/null/flow.json");
        assert_eq!(faults, ["c:3:8: flow_log[0].path: /dev/null is no directory; allowed: a file in one"]);
    }

    #[test]
    fn what_this_machine_lacks_is_no_fault() {
        let args = "\"--vdev=net_af_packet0,iface=no-such-iface\"";
        let (faults, warnings) = found(args, "net_af_packet0", "fffe:ff:1f.7");
        assert_eq!(faults, [""; 0]);
        assert_eq!(
            warnings,
            [
                "c:5:10: wire[0].inside: the interface no-such-iface of net_af_packet0 is not there (yet)",
                "c:6:11: wire[0].outside: no PCI device fffe:ff:1f.7 is there (yet)",
            ]
        );
    }
}
