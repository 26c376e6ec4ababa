//! The project's own commands: what the README tells a newcomer to type.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("usage: cargo xtask demo | test | bench | doctor | infra")
}
