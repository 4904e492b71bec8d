//! Runs the room as the operator starts it.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    room::run(processhub_sdk::Config::from_env()?).await
}
