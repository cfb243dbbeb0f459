//! Finds libdpdk, compiles the shim and lets bindgen declare what `pmd` uses.

use std::env;
use std::path::PathBuf;
use std::process::exit;

/// The libraries whose symbols we call; drivers are plugins that EAL loads by itself.
const LIBRARIES: [&str; 5] = ["rte_eal", "rte_mempool", "rte_mbuf", "rte_ethdev", "rte_telemetry"];

/// Every function of DPDK that is called as it is; static inlines come as `shim_*`.
const FUNCTIONS: &str = "shim_.*\
    |rte_eal_(init|cleanup|has_hugepages|hotplug_add|hotplug_remove)\
    |rte_version|rte_strerror|rte_socket_id\
    |rte_thread_(register|unregister)\
    |rte_pktmbuf_pool_create\
    |rte_mempool_(free|avail_count|in_use_count)\
    |rte_eth_dev_(get_port_by_name|get_name_by_port|is_valid_port|info_get|configure|adjust_nb_rx_tx_desc\
        |start|stop|close|set_mtu|get_mtu|rss_hash_conf_get|rss_hash_update|rss_reta_update|rss_reta_query|socket_id)\
    |rte_eth_(rx|tx)_queue_setup\
    |rte_eth_(promiscuous|allmulticast)_(enable|get)\
    |rte_eth_(stats_get|macaddr_get)\
    |rte_telemetry_register_cmd\
    |rte_tel_data_(alloc|free|start_dict|start_array|add_dict_u64|add_dict_string|add_dict_container|add_array_string)";

const CONSTANTS: &str = "SHIM_.*|RTE_MAX_ETHPORTS|RTE_ETH_NAME_MAX_LEN|RTE_ETH_RETA_GROUP_SIZE\
    |RTE_PKTMBUF_HEADROOM|RTE_TEL_MAX_STRING_LEN|RTE_MEMPOOL_NAMESIZE|RTE_ETH_MQ_RX_.*";

/// Types with bit fields, packing or unions that bindgen can't lay out, or whose inside is no
/// business of ours.
const OPAQUE: &str =
    "rte_mbuf|rte_mempool|rte_device|rte_eth_vmdq.*|rte_eth_dcb.*|rte_eth_rxseg.*|rte_eth_intr_conf";

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1)
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim.h");
    println!("cargo::rerun-if-changed=shim.c");

    let dpdk = match pkg_config::Config::new().atleast_version("22.11").cargo_metadata(false).probe("libdpdk")
    {
        Ok(found) => found,
        Err(pkg_config::Error::Command { .. }) => fail(
            "pkg-config is missing: install the Debian packages pkg-config, libdpdk-dev and libclang-dev",
        ),
        Err(_) => fail(
            "libdpdk >= 22.11 is not found by pkg-config: install the Debian package libdpdk-dev \
             (or point PKG_CONFIG_PATH at the directory of libdpdk.pc)",
        ),
    };
    let flags = compiler_flags();

    let mut shim = cc::Build::new();
    shim.file("shim.c").opt_level(3).flags(&flags).flag_if_supported("-Wno-deprecated-declarations");
    if let Err(e) = shim.try_compile("portcullis_shim") {
        fail(&format!("the shim over libdpdk {} does not compile: {e}", dpdk.version).replace('\n', " "));
    }

    for dir in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", dir.display());
    }
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib={library}");
    }

    // bindgen panics where it can't load libclang: ask first, and say it in one line.
    std::panic::set_hook(Box::new(|_| {}));
    if std::panic::catch_unwind(bindgen::clang_version).is_err() {
        fail("libclang is not found: install the Debian package libclang-dev (or set LIBCLANG_PATH)");
    }
    let _ = std::panic::take_hook();

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("dpdk.rs");
    let declarations = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(&flags)
        .allowlist_function(FUNCTIONS)
        .allowlist_var(CONSTANTS)
        .allowlist_type("shim_mbuf")
        .opaque_type(OPAQUE)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(true)
        .generate();
    match declarations {
        Ok(declarations) => declarations.write_to_file(out).expect("OUT_DIR can be written"),
        Err(e) => fail(
            &format!("bindgen can't read the headers of libdpdk {}: {e}", dpdk.version).replace('\n', " "),
        ),
    }
}

/// All of pkg-config's cflags: headers need `-march=…` and `-include rte_config.h` as much as the
/// paths.
fn compiler_flags() -> Vec<String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = std::process::Command::new(program).args(["--cflags", "libdpdk"]).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}
