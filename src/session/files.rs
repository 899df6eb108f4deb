//! Files as tables: `SELECT … FROM '/data/teams.parquet'`, only below the folders that the server was started with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use datafusion::{
    catalog::TableProvider,
    datasource::listing::{ListingTable, ListingTableConfig, ListingTableConfigExt, ListingTableUrl},
    execution::SessionState,
};

use crate::error::{Error, Result};

/// Whether a table name that nothing has is meant as a file.
pub fn looks_like_a_file(name: &str) -> bool {
    name.contains('/') || [".parquet", ".csv", ".json", ".ndjson"].iter().any(|end| name.ends_with(end))
}

/// The file as a table, if it lies below an allowed folder.
pub async fn table(state: &SessionState, allowed: &[PathBuf], name: &str) -> Result<Arc<dyn TableProvider>> {
    let path = allowed_path(allowed, name)?;
    let url = ListingTableUrl::parse(path.to_string_lossy())?;
    let config = ListingTableConfig::new(url).infer_options(state).await?.infer_schema(state).await?;
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// The real path of a file, links followed, if it lies below an allowed folder. The sentence is the same whether a forbidden file
/// exists or not.
fn allowed_path(allowed: &[PathBuf], name: &str) -> Result<PathBuf> {
    let refused = || {
        let advice = if allowed.is_empty() {
            "start the server with --allow-path DIR to allow a folder".to_string()
        } else {
            format!("allowed folders: {}", allowed.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))
        };
        Error::Invalid(format!("SQL may not read {name}: {advice}"))
    };
    let local = name.strip_prefix("file://").unwrap_or(name);
    if local.contains("://") || local.contains(['*', '?', '[']) {
        return Err(refused());
    }
    let path = Path::new(local).canonicalize();
    let below = |path: &Path| allowed.iter().filter_map(|folder| folder.canonicalize().ok()).any(|folder| path.starts_with(folder));
    match path {
        // A folder is refused: links in it might lead out of it.
        Ok(path) if below(&path) && path.is_file() => Ok(path),
        Ok(path) if below(&path) => Err(Error::Invalid(format!("{name} is not a file: name one file"))),
        Ok(_) => Err(refused()),
        Err(error) => match Path::new(local).parent().and_then(|p| p.canonicalize().ok()) {
            Some(folder) if below(&folder) => Err(Error::NotFound(format!("file {name} can't be read: {error}"))),
            _ => Err(refused()),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_below_allowed_folders() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("in"), root.path().join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("a.csv"), "x\n1\n").unwrap();
        std::fs::write(outside.join("b.csv"), "x\n1\n").unwrap();
        std::os::unix::fs::symlink(outside.join("b.csv"), inside.join("link.csv")).unwrap();
        let allowed = vec![inside.clone()];
        let name = |p: PathBuf| p.to_string_lossy().into_owned();
        assert!(allowed_path(&allowed, &name(inside.join("a.csv"))).is_ok());
        for bad in [outside.join("b.csv"), inside.join("../out/b.csv"), inside.join("link.csv"), outside.join("missing.csv"), "/etc/passwd".into()] {
            let error = allowed_path(&allowed, &name(bad.clone())).unwrap_err().to_string();
            assert!(error.contains("may not read"), "{}: {error}", bad.display());
        }
        assert!(allowed_path(&allowed, "s3://bucket/a.csv").is_err());
        assert!(allowed_path(&[], &name(inside.join("a.csv"))).unwrap_err().to_string().contains("--allow-path"));
    }
}
