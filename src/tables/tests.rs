//! A table's folder under faults: every step of a change fails once, and the folder as it is at every step is opened as after a crash.

#![allow(clippy::unwrap_used)]

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{AsArray, Int64Array},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{execution::memory_pool::UnboundedMemoryPool, parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder};
use parking_lot::Mutex;

use super::{
    Change, DataFile, Hook, Marks, Room, Snapshot, Step, TableStore, compact,
    manifest::{Entry, Manifest},
    without,
    writer::FileWriter,
};
use crate::error::Result;

const STEPS: [Step; 9] = [
    Step::CreateFile,
    Step::WriteFile,
    Step::SyncFile,
    Step::SyncNames,
    Step::WriteManifest,
    Step::SyncManifest,
    Step::RenameManifest,
    Step::SyncRename,
    Step::Committed,
];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]))
}

fn room() -> Room {
    Arc::new(UnboundedMemoryPool::default())
}

fn no_faults() -> Hook {
    Arc::new(|_| Ok(()))
}

fn batch(rows: impl IntoIterator<Item = i64>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(rows))]).unwrap()
}

fn write(store: &Arc<TableStore>, rows: impl IntoIterator<Item = i64>) -> Result<Vec<Arc<DataFile>>> {
    let mut writer = FileWriter::new(store.clone(), &room());
    writer.write(&batch(rows))?;
    writer.finish()
}

fn commit(store: &Arc<TableStore>, change: Change) -> Result<Arc<Snapshot>> {
    let turn = futures::executor::block_on(store.turn());
    store.commit(&turn, change)
}

fn insert(store: &Arc<TableStore>, rows: impl IntoIterator<Item = i64>) -> Result<Arc<Snapshot>> {
    let add = write(store, rows)?;
    commit(store, Change { add, remove: vec![] })
}

fn delete(store: &Arc<TableStore>, gone: impl Fn(i64) -> bool) -> Result<Arc<Snapshot>> {
    let snapshot = store.snapshot();
    let mut marks = Marks::default();
    for (at, file) in snapshot.files().iter().enumerate() {
        for (row, value) in read(file).into_iter().enumerate() {
            if gone(value) {
                marks.add(&snapshot, at, row)?;
            }
        }
    }
    let change = without(store, &snapshot, &marks, &room())?;
    commit(store, change)
}

fn read(file: &DataFile) -> Vec<i64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file.path()).unwrap()).unwrap().build().unwrap();
    reader.flat_map(|batch| batch.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn rows(snapshot: &Snapshot) -> Vec<i64> {
    let mut rows: Vec<i64> = snapshot.files().iter().flat_map(|file| read(file)).collect();
    rows.sort_unstable();
    assert_eq!(rows.len() as u64, snapshot.rows());
    rows
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn made(folder: &Path, hook: Hook) -> Arc<TableStore> {
    let store = TableStore::create("t", schema(), folder.to_path_buf(), hook).unwrap();
    store.keep();
    store
}

fn reopened(folder: &Path) -> Arc<TableStore> {
    TableStore::open("t", schema(), folder.to_path_buf(), no_faults()).unwrap()
}

#[test]
fn changes_outlive_the_process_and_leave_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("1");
    let store = made(&folder, no_faults());
    commit(&store, Change::default()).unwrap();
    insert(&store, 0..10).unwrap();
    insert(&store, 10..20).unwrap();
    delete(&store, |a| a % 2 == 0).unwrap();
    delete(&store, |a| a < 10).unwrap();
    assert_eq!(rows(&store.snapshot()), [11, 13, 15, 17, 19]);
    drop(store);
    let again = reopened(&folder);
    assert_eq!((rows(&again.snapshot()), again.snapshot().sequence()), (vec![11, 13, 15, 17, 19], 5));
    assert_eq!(names(&folder).len(), 2, "{:?}", names(&folder));
}

#[test]
fn each_step_that_fails_changes_nothing() {
    for step in STEPS {
        for change in 0..3 {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("1");
            let fails = Arc::new(Mutex::new(None));
            let armed = fails.clone();
            let store = made(&folder, Arc::new(move |at| if *armed.lock() == Some(at) { Err(io::Error::other("the disk is full")) } else { Ok(()) }));
            insert(&store, 0..10).unwrap();
            let before = names(&folder);
            *fails.lock() = Some(step);
            let outcome = match change {
                0 => insert(&store, 10..20),
                1 => delete(&store, |a| a < 5),
                _ => {
                    let remove = store.snapshot().files().to_vec();
                    write(&store, 5..7).and_then(|add| commit(&store, Change { add, remove }))
                }
            };
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("table t") && error.contains("the disk is full") && error.contains("nothing was changed"), "{step:?}: {error}");
            assert_eq!(rows(&store.snapshot()), (0..10).collect::<Vec<_>>());
            assert_eq!(names(&folder), before, "{step:?} leaves something");
            assert_eq!(rows(&reopened(&folder).snapshot()), (0..10).collect::<Vec<_>>(), "{step:?}");
            // When the disk is well again, so is the table.
            *fails.lock() = None;
            insert(&store, 10..20).unwrap();
            assert_eq!(rows(&reopened(&folder).snapshot()), (0..20).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_crash_at_any_step_leaves_before_or_after() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("1");
    // A picture of the folder at each step is what a killed process would have left there.
    let pictures: Arc<Mutex<Vec<(Step, PathBuf)>>> = Arc::default();
    let (taken, source, target) = (pictures.clone(), folder.clone(), root.path().to_path_buf());
    let store = made(
        &folder,
        Arc::new(move |step| {
            let mut taken = taken.lock();
            let picture = target.join(format!("picture-{}", taken.len()));
            std::fs::create_dir(&picture)?;
            for entry in std::fs::read_dir(&source)? {
                let entry = entry?;
                std::fs::copy(entry.path(), picture.join(entry.file_name()))?;
            }
            taken.push((step, picture));
            Ok(())
        }),
    );
    insert(&store, 0..100).unwrap();
    let mut states = vec![rows(&store.snapshot())];
    let mut seen = vec![pictures.lock().len()];
    let mut done = |store: &Arc<TableStore>| {
        states.push(rows(&store.snapshot()));
        seen.push(pictures.lock().len());
    };
    insert(&store, 100..200).unwrap();
    done(&store);
    delete(&store, |a| a % 3 == 0).unwrap();
    done(&store);
    for n in 0..20 {
        insert(&store, [n + 1000]).unwrap();
        done(&store);
    }
    let turn = futures::executor::block_on(store.turn());
    compact(&store, &turn, &room()).unwrap();
    drop(turn);
    done(&store);
    assert!(store.snapshot().files().len() < 8);
    delete(&store, |_| true).unwrap();
    done(&store);
    let pictures = pictures.lock();
    for (change, window) in seen.windows(2).enumerate() {
        for (step, picture) in &pictures[window[0]..window[1]] {
            let found = rows(&reopened(picture).snapshot());
            assert!(found == states[change] || found == states[change + 1], "change {change}, {step:?}: {found:?}");
            if matches!(step, Step::SyncRename | Step::Committed) && states[change] != states[change + 1] && window[1] - window[0] < 12 {
                assert_eq!(found, states[change + 1], "change {change} counts from {step:?} on");
            }
            let left = names(picture);
            assert_eq!(left.iter().filter(|name| name.ends_with(".json")).count(), 1, "{left:?}");
            assert_eq!(left.len(), reopened(picture).snapshot().files().len() + 1, "{left:?}");
        }
    }
}

#[test]
fn readers_keep_their_files() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("1");
    let store = made(&folder, no_faults());
    insert(&store, 0..10).unwrap();
    let held = store.snapshot();
    delete(&store, |a| a < 9).unwrap();
    insert(&store, 10..11).unwrap();
    assert_eq!(rows(&held), (0..10).collect::<Vec<_>>());
    assert_eq!(names(&folder).len(), 4);
    drop(held);
    assert_eq!(names(&folder).len(), 3);
    let held = store.snapshot();
    store.drop_files();
    assert!(insert(&store, [1]).unwrap_err().to_string().contains("dropped"));
    drop(store);
    assert_eq!(rows(&held), [9, 10]);
    drop(held);
    assert!(!folder.exists());
}

#[test]
fn one_that_never_came_to_be_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("1");
    let store = TableStore::create("t", schema(), folder.clone(), no_faults()).unwrap();
    insert(&store, 0..10).unwrap();
    assert!(folder.exists());
    drop(store);
    assert!(!folder.exists());
}

#[test]
fn the_newest_manifest_that_verifies_is_the_table() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("1");
    let store = made(&folder, no_faults());
    insert(&store, 0..10).unwrap();
    let newest = store.snapshot();
    drop(store);
    // A newer one whose file is missing, and one that is damaged.
    let missing = Manifest::new(8, vec![Entry { name: "gone.parquet".into(), rows: 1, bytes: 1 }]);
    std::fs::write(folder.join(Manifest::name(8)), missing.encode().unwrap()).unwrap();
    std::fs::write(folder.join(Manifest::name(9)), b"crc32 00000000\n{}\n").unwrap();
    std::fs::write(folder.join("orphan.parquet"), b"").unwrap();
    let store = reopened(&folder);
    assert_eq!(rows(&store.snapshot()), (0..10).collect::<Vec<_>>());
    assert_eq!(store.snapshot().files()[0].name(), newest.files()[0].name());
    assert!(folder.join("orphan.parquet").exists(), "whoever looks after the damage finds everything");
    // Numbers go on above the damaged ones.
    assert_eq!(insert(&store, 10..11).unwrap().sequence(), 10);
    drop(store);
    assert_eq!(rows(&reopened(&folder).snapshot()), (0..11).collect::<Vec<_>>());
    for name in names(&folder).iter().filter(|name| name.ends_with(".json")) {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let error = TableStore::open("t", schema(), folder.clone(), no_faults()).unwrap_err().to_string();
    assert!(error.contains("no manifest") && error.contains("DROP TABLE t"), "{error}");
    assert_eq!(names(&folder).iter().filter(|name| name.ends_with(".parquet")).count(), 2, "nothing is removed that can't be understood");
}

#[test]
fn files_stay_few() {
    let root = tempfile::tempdir().unwrap();
    let store = made(&root.path().join("1"), no_faults());
    let mut most = 0;
    for n in 0..200 {
        insert(&store, [n]).unwrap();
        let turn = futures::executor::block_on(store.turn());
        compact(&store, &turn, &room()).unwrap();
        most = most.max(store.snapshot().files().len());
    }
    assert!(most < 16, "{most} files");
    assert_eq!(rows(&store.snapshot()), (0..200).collect::<Vec<_>>());
}
