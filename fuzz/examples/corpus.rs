//! `unpack-all FOLDER` writes the committed inputs of every target into `FOLDER/TARGET/`, where a fuzzer reads them.
//! `pack TARGET FOLDER` makes what is in a folder the committed inputs: of what a fuzzer has minimised.

use std::{env, error::Error, fs, path::Path};

use vhost_fuzz::{TARGETS, corpus};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["unpack-all", folder] => {
            TARGETS.iter().try_for_each(|(target, _)| unpack(target, &Path::new(folder).join(target)))
        }
        ["pack", target, folder] => pack(target, Path::new(folder)),
        _ => Err("corpus unpack-all FOLDER | corpus pack TARGET FOLDER".into()),
    }
}

fn unpack(target: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for (number, input) in corpus::read(target)?.iter().enumerate() {
        fs::write(folder.join(format!("{number:04}")), input)?;
    }
    Ok(())
}

fn pack(target: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let files = fs::read_dir(folder)?.map(|file| fs::read(file?.path())).collect::<Result<Vec<_>, _>>()?;
    let mut lines: Vec<String> =
        files.iter().filter(|input| !input.is_empty()).map(|input| corpus::line(input)).collect();
    lines.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    fs::write(corpus::path(target), lines.concat())?;
    Ok(())
}
