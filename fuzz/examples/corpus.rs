//! `unpack TARGET FOLDER` writes the committed inputs of a target into a folder, where a fuzzer reads them.
//! `pack TARGET FOLDER` makes what is in a folder the committed inputs: of what a fuzzer has minimised.

use std::{env, error::Error, fs, path::Path};

use vhost_fuzz::corpus;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [verb, target, folder] = &arguments[..] else { return Err("corpus pack|unpack TARGET FOLDER".into()) };
    if verb == "unpack" {
        fs::create_dir_all(folder)?;
        for (number, input) in corpus::read(target)?.iter().enumerate() {
            fs::write(Path::new(folder).join(format!("{number:04}")), input)?;
        }
        return Ok(());
    }
    let files = fs::read_dir(folder)?.map(|file| fs::read(file?.path())).collect::<Result<Vec<_>, _>>()?;
    let mut lines: Vec<String> =
        files.iter().filter(|input| !input.is_empty()).map(|input| corpus::line(input)).collect();
    lines.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    fs::write(corpus::path(target), lines.concat())?;
    Ok(())
}
