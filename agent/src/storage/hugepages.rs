//! Volumes of huge pages: `hugetlbfs`, with as many pages put aside as the volume may have
//! (`Documentation/admin-guide/mm/hugetlbpage.rst` of the kernel).

use std::path::{Path, PathBuf};

use super::{Storage, StorageError};

/// Where the kernel counts huge pages.
const POOLS: &str = "/sys/kernel/mm/hugepages";

/// What a volume wants.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// Size of a page, in bytes.
    page: u64,
    /// Size of the volume, in bytes.
    size: u64,
    /// Options for the file system.
    others: Vec<String>,
}

impl Wanted {
    fn parse(storage: &Storage) -> Result<Wanted, StorageError> {
        let (mut page, mut size, mut others) = (None, None, Vec::new());
        for option in &storage.options {
            let bytes = |text: &str| {
                let parsed = parse_size(text).filter(|bytes| *bytes > 0);
                parsed.ok_or_else(|| storage.invalid(format!("option {option:?} is not a size")))
            };
            if let Some(text) = option.strip_prefix("pagesize=") {
                page = Some(bytes(text)?);
            } else if let Some(text) = option.strip_prefix("size=") {
                size = Some(bytes(text)?);
            } else if !option.starts_with("fsgid=") {
                others.push(option.clone());
            }
        }
        match (page, size) {
            (Some(page), Some(size)) if page % 1024 == 0 => Ok(Wanted { page, size, others }),
            _ => Err(storage.invalid("hugetlbfs needs the options pagesize= and size=".to_owned())),
        }
    }

    fn pages(&self) -> u64 {
        self.size.div_ceil(self.page)
    }

    fn pool(&self, pools: &Path) -> PathBuf {
        pools.join(format!("hugepages-{}kB", self.page / 1024)).join("nr_hugepages")
    }

    fn options(&self) -> Vec<String> {
        let sizes = [format!("pagesize={}", self.page), format!("size={}", self.pages() * self.page)];
        sizes.into_iter().chain(self.others.iter().cloned()).collect()
    }
}

/// Bytes, or a number with one of the units that hugetlbfs and Kubernetes know.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "k" | "Ki" | "KB" => 10,
        "M" | "m" | "Mi" | "MB" => 20,
        "G" | "g" | "Gi" | "GB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Puts pages aside and mounts the volume.
pub(super) fn mount(storage: &Storage) -> Result<(), StorageError> {
    let wanted = Wanted::parse(storage)?;
    reserve(&wanted, Path::new(POOLS), storage)?;
    super::mount_at("hugetlbfs", &storage.source, &wanted.options(), &storage.mount_point)
        .inspect_err(|_| put_back(&wanted, Path::new(POOLS)))
}

/// Unmounts the volume and gives its pages back.
pub(super) fn unmount(storage: &Storage) -> Result<(), StorageError> {
    super::unmount(&storage.mount_point)?;
    put_back(&Wanted::parse(storage)?, Path::new(POOLS));
    Ok(())
}

fn reserve(wanted: &Wanted, pools: &Path, storage: &Storage) -> Result<(), StorageError> {
    let pool = wanted.pool(pools);
    if !pool.exists() {
        let size = wanted.page / 1024;
        return Err(storage.invalid(format!("this guest has no huge pages of {size} KiB")));
    }
    let _alone = lock(&pool)?;
    let before = count(&pool)?;
    let target = before + wanted.pages();
    set(&pool, target)?;
    let got = count(&pool)?;
    if got < target {
        // The kernel puts aside what it can.
        set(&pool, before)?;
        let (path, size) = (pool.display().to_string(), wanted.page / 1024);
        return Err(StorageError::HugePages {
            got: got - before.min(got),
            wanted: wanted.pages(),
            size,
            path,
        });
    }
    Ok(())
}

fn put_back(wanted: &Wanted, pools: &Path) {
    let pool = wanted.pool(pools);
    let back = lock(&pool).and_then(|_alone| set(&pool, count(&pool)?.saturating_sub(wanted.pages())));
    if let Err(error) = back {
        tracing::warn!(error = %crate::error::chain(&error), "huge pages stay put aside");
    }
}

/// Keeps others from counting while one changes the number.
fn lock(pool: &Path) -> Result<std::fs::File, StorageError> {
    let file = std::fs::File::open(pool).map_err(failed("open", pool))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|errno| failed("lock", pool)(errno.into()))?;
    Ok(file)
}

fn count(pool: &Path) -> Result<u64, StorageError> {
    let text = std::fs::read_to_string(pool).map_err(failed("read", pool))?;
    text.trim().parse().map_err(|_| failed("understand", pool)(std::io::ErrorKind::InvalidData.into()))
}

fn set(pool: &Path, pages: u64) -> Result<(), StorageError> {
    std::fs::write(pool, pages.to_string()).map_err(failed("write to", pool))
}

fn failed(operation: &'static str, pool: &Path) -> impl FnOnce(std::io::Error) -> StorageError {
    move |source| StorageError::Io { operation, path: pool.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(options: &[&str]) -> Storage {
        Storage { options: options.iter().map(|&option| option.to_owned()).collect(), ..Storage::default() }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("2097152"), Some(2 << 20));
        assert_eq!(parse_size("2M"), Some(2 << 20));
        assert_eq!(parse_size("1Gi"), Some(1 << 30));
        for bad in ["", "M", "2T", "-1", "2 M", "99999999999999999999", "18446744073709551615K"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        let wanted = Wanted::parse(&storage(&["pagesize=2M", "size=5242880", "uid=7", "fsgid=1"])).unwrap();
        assert_eq!(wanted.options(), ["pagesize=2097152", "size=6291456", "uid=7"]);
        for bad in [&["size=1"][..], &["pagesize=2M"], &["pagesize=0", "size=1"], &["pagesize=100", "size=1"]]
        {
            assert!(Wanted::parse(&storage(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pages_are_added_and_taken_back() {
        let pools = tempfile::tempdir().unwrap();
        let pool = pools.path().join("hugepages-2048kB");
        std::fs::create_dir(&pool).unwrap();
        std::fs::write(pool.join("nr_hugepages"), "3\n").unwrap();
        let storage = storage(&["pagesize=2M", "size=8M"]);
        let wanted = Wanted::parse(&storage).unwrap();
        reserve(&wanted, pools.path(), &storage).unwrap();
        assert_eq!(count(&pool.join("nr_hugepages")).unwrap(), 7);
        put_back(&wanted, pools.path());
        assert_eq!(count(&pool.join("nr_hugepages")).unwrap(), 3);
        let huge = Wanted { page: 1 << 30, ..wanted };
        assert!(reserve(&huge, pools.path(), &storage).is_err());
    }
}
