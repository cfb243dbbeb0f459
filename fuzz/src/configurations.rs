//! Configurations of any text: refused with a place, or read the same again.

use control::config::check_config;

const EXAMPLE: &str = include_str!("../../ctrl/control/tests/data/example.toml");

/// Reads it.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match check_config(text, "config") {
        Ok(checked) => {
            let again = check_config(text, "config").expect("as before");
            assert_eq!(again.config, checked.config);
            let _ = (checked.config.require_wires(), checked.config.stats_page());
            checked.warnings.iter().for_each(|warning| drop(warning.to_string()));
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(fault.to_string().starts_with("config:"), "{fault}");
            }
        }
    }
}

/// The example, and the tables that it leaves out.
pub fn seeds() -> Vec<Vec<u8>> {
    let others = [
        "[[flow_log]]\nkind = \"json\"\npath = \"/f\"\nrotate_bytes = 1000\nrotate_keep = 3\n[[flow_log]]\nkind = \"ipfix\"\ncollector = \"127.0.0.1:4739\"\n",
        "[api]\nlisten = \"[::1]:9\"\nanonymous = \"read\"\n[store]\npath = \"/s\"\nwitness = \"/w\"\nmust_exist = true\n",
        "[sandbox]\nseccomp = false\npaths = [\"/srv\"]\n[trace]\nhistory = 10\n[metrics]\nnics = 0\n[stats]\npage = \"/p\"\n[log]\nformat = \"json\"\n",
        "[conntrack]\nkeep = \"auto\"\npickup_grace = 2.5\n[timeouts]\ntcp_syn = 0.25\n[workers]\ncores = [1, 2]\nidle = \"park\"\n",
    ];
    let example = std::iter::once(EXAMPLE).chain(others);
    example.map(|text| text.as_bytes().to_vec()).collect()
}
