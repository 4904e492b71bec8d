//! Runs the version of the account that `ACCOUNT_VSN` names, as the operator starts it.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let vsn = std::env::var("ACCOUNT_VSN").unwrap_or_else(|_| account::v1::VSN.to_owned());
    account::run(&vsn, processhub_sdk::Config::from_env()?).await
}
