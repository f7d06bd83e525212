//! What the schedulers of this machine listen on, in a file that `local` writes and the client reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name, in the folder of an application and environment.
const FILE: &str = "addresses";
/// Folders that are looked into.
const MAX_FOLDERS: usize = 1000;

/// Where one job component is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    pub component: String,
    /// Without a slash at its end.
    pub url: String,
}

/// Writes the file, whole or not at all, and removes it when dropped.
pub struct Published(PathBuf);

/// Says what listens where. `folder` is the data folder's part of an application and environment.
pub fn publish(folder: &Path, addresses: &[Address]) -> io::Result<Published> {
    let lines = addresses
        .iter()
        .map(|a| format!("{} {}\n", a.component, a.url));
    let file = folder.join(FILE);
    let new = folder.join(format!("{FILE}.new"));
    fs::write(&new, lines.collect::<String>())?;
    fs::rename(&new, &file)?;
    Ok(Published(file))
}

impl Drop for Published {
    fn drop(&mut self) {
        // One that stays leads to a port where nothing listens, which a client is told.
        let _ = fs::remove_file(&self.0);
    }
}

/// What is said to listen on this machine, by all schedulers of a data folder.
pub fn find(data_dir: &Path) -> Vec<Address> {
    let folders = fs::read_dir(data_dir).into_iter().flatten().flatten();
    let mut found: Vec<Address> = Vec::new();
    for folder in folders.take(MAX_FOLDERS) {
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| {
            let (component, url) = line.split_once(' ')?;
            Some(Address {
                component: component.to_string(),
                url: url.to_string(),
            })
        }));
    }
    found.sort_by(|a, b| a.component.cmp(&b.component));
    found
}

/// Why none of the addresses is the one to ask.
#[derive(Debug, PartialEq)]
pub enum Unclear {
    /// Nothing is said to listen.
    Nothing,
    /// None has this name; these are there.
    Unknown { known: Vec<String> },
    /// Several are there, or several have the name.
    Several { known: Vec<String> },
}

/// The address to ask: the component's that is named, or that a job's name begins with, or the only
/// one.
pub fn pick<'a>(
    addresses: &'a [Address],
    component: Option<&str>,
    job: Option<&str>,
) -> Result<&'a Address, Unclear> {
    let known = |addresses: &[&Address]| {
        let names = addresses.iter();
        names
            .map(|a| format!("{} ({})", a.component, a.url))
            .collect()
    };
    let all: Vec<&Address> = addresses.iter().collect();
    let of = |name: &str| -> Vec<&'a Address> {
        let found = addresses.iter().filter(|a| a.component == name);
        found.collect()
    };
    // A job's name is its component's, and then a time and a random part.
    let of_job = job.and_then(|job| job.rsplitn(3, '-').nth(2)).map(of);
    let found = match (component, of_job) {
        (Some(name), _) => of(name),
        (None, Some(found)) if !found.is_empty() => found,
        (None, _) => all.clone(),
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] if addresses.is_empty() => Err(Unclear::Nothing),
        [] => Err(Unclear::Unknown { known: known(&all) }),
        several => Err(Unclear::Several {
            known: known(several),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_named_or_follows_from_a_job_or_is_the_only_one() {
        let address = |component: &str, port: u16| Address {
            component: component.to_string(),
            url: format!("http://127.0.0.1:{port}"),
        };
        let two = [address("compute", 1), address("etl", 2)];
        let url = |component, job| pick(&two, component, job).map(|a| a.url.as_str());
        assert_eq!(url(Some("etl"), None), Ok("http://127.0.0.1:2"));
        let job = Some("compute-20261124090332-lpf3yfob");
        assert_eq!(url(None, job), Ok("http://127.0.0.1:1"));
        assert_eq!(url(Some("etl"), job), Ok("http://127.0.0.1:2"));
        let known = vec![
            "compute (http://127.0.0.1:1)".to_string(),
            "etl (http://127.0.0.1:2)".to_string(),
        ];
        let several = Unclear::Several {
            known: known.clone(),
        };
        assert_eq!(url(None, None), Err(several));
        assert_eq!(url(Some("x"), None), Err(Unclear::Unknown { known }));
        assert_eq!(
            pick(&two[..1], None, Some("x")).unwrap().component,
            "compute"
        );
        assert_eq!(pick(&[], None, None), Err(Unclear::Nothing));
    }
}
