//! Advice about rules.

use clap::Args;

use super::{Client, Output};

/// `advise`
#[derive(Debug, Args)]
pub struct Advise {
    /// About rules of these groups: NAME or PROJECT/NAME; of all, if none is named
    #[arg(value_name = "GROUP")]
    pub groups: Vec<String>,
    /// What was not seen counts only if it was watched for since then, or for longer: seconds since 1970, a time such as
    /// 2026-01-31T12:00:00Z, or how long ago, such as `-90s`, `-5m` or `-2h`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "-24h")]
    pub since: String,
    /// So many suggestions at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Print the whole policy as all safe suggestions together leave it instead, to be looked at by `diff` and put in force by `apply`
    #[arg(long, conflicts_with = "output")]
    pub document: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}
