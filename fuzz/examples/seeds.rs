//! Writes what each target begins with into DIRECTORY/TARGET, for `scripts/fuzz`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let into = std::env::args_os().nth(1).expect("a directory");
    for target in &fuzz::TARGETS {
        let directory = Path::new(&into).join(target.name);
        std::fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
