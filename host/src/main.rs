//! The `millstream` binary: hands the command line to the library.

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    let config = millstream::config::Config::load(std::path::Path::new(&args[2]))?;
    millstream::cli::run::run(&config, args.contains(&"--progress".into()), args.contains(&"--until-end".into()))
}
