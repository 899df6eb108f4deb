//! Holds the architecture's one-way dependencies: reads the `crate::…` paths of every source file and refuses those that point up.
//!
//! It reads text and links nothing of the library, so that it also runs while the library doesn't compile.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Which modules each module may name beside itself and `error`, the one error type of all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("units", &[]),
    ("durable", &[]),
    ("access", &["durable"]),
    ("tls", &[]),
    ("device", &[]),
    ("catalog", &["durable"]),
    ("sql", &["access", "catalog", "units"]),
    ("source", &["catalog"]),
    ("decode", &["catalog", "source"]),
    ("stream", &["durable", "catalog", "decode", "device", "source", "sql"]),
    ("tables", &["durable", "catalog"]),
    ("sink", &["durable", "stream", "source", "catalog"]),
    ("session", &["durable", "sink", "tables", "stream", "decode", "device", "source", "sql", "catalog", "access"]),
    ("config", &["session", "catalog", "access", "tls", "units"]),
    ("console", &["session", "access", "tls"]),
    ("serve", &["session", "config", "access", "tls"]),
];

/// These stand on top and may name everything.
const TOP: &[&str] = &["cli", "lib", "main"];

#[test]
fn modules_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 10, "only {} files below {}", files.len(), root.display());
    let mut wrong = vec![];
    for file in files {
        let inside = file.strip_prefix(&root).expect("it was found below the root");
        let module = inside.iter().next().expect("a file has a name").to_string_lossy().trim_end_matches(".rs").to_string();
        if TOP.contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: say in tests/layering.rs what `{module}` may depend on", inside.display()));
            continue;
        };
        for named in named_modules(&fs::read_to_string(&file).expect("it was listed")) {
            if named != module && named != "error" && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}: `{module}` must not know `{named}`", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn lower_crates_do_not_point_up() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, forbidden) in [("udfs", ["kernels", "models"].as_slice()), ("kernels", &["udfs", "models", "datafusion"]), ("models", &["udfs", "kernels"])] {
        let text = fs::read_to_string(root.join(name).join("Cargo.toml")).expect("each crate has its manifest");
        let manifest: toml::Table = text.parse().expect("cargo reads it too");
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).map(|t| t.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        for dependency in dependencies {
            let short = dependency.trim_start_matches("tidegate-");
            assert!(dependency != "tidegate" && !forbidden.contains(&short), "`{name}` must not depend on `{dependency}`");
        }
    }
}

#[test]
fn paths_are_found() {
    let found = named_modules(
        "use crate::sql::Statement;\nuse crate::{\n    catalog::{SourceDef, ViewDef},\n    error::Result, source,\n};\n\
         // crate::cli is only named in a comment\nlet e = crate::Error::new(crate::stream::run());\npub(in crate::decode) fn f() {}\nuse ::crate_like::x;",
    );
    assert_eq!(found, ["catalog", "decode", "error", "source", "sql", "stream"].map(String::from).into());
}

/// The first segments of all `crate::…` paths in code; an item of the crate's root (`crate::Error`) counts as `error`, which it is re-exported from.
fn named_modules(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.extend(head(rest)),
        }
    }
    found
}

/// The first segments of a `{a::x, b::{y, z}, c}` whose opening brace has been read.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = vec![];
    let mut depth = 0;
    let mut expects = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects = true,
            c if expects && depth == 0 && !c.is_whitespace() => {
                heads.extend(head(&group[at..]));
                expects = false;
            }
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let first = name.chars().next()?;
    Some(if first.is_uppercase() { "error".into() } else { name })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).expect("the folder of sources is there") {
        let path = entry.expect("its entries can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
