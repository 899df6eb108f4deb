//! The flat form against trees as one would draw them, its JSON, and what it refuses.

use std::{collections::BTreeMap, sync::Arc};

use crate::common::{Drawn, Random, columns, names};
use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Array, RecordBatch, StringArray},
    datatypes::Float64Type,
};
use tidegate_models::{
    Classes, FlatForest, Scores,
    forest::{ForestError, NodeFault, TreeForm},
};

fn classes(count: usize) -> Classes {
    Classes::Integer((0..count as i64).collect())
}

fn forest(features: usize, count: usize, trees: Vec<TreeForm>) -> Result<FlatForest, ForestError> {
    FlatForest::new(names(features), classes(count), BTreeMap::new(), trees)
}

/// A random forest, flat and drawn.
fn random_forest(random: &mut Random) -> (FlatForest, Vec<Drawn>, usize) {
    let (features, count, trees, depth) = (1 + random.below(6), 2 + random.below(4), 1 + random.below(12), random.below(9));
    let drawn: Vec<Drawn> = (0..trees).map(|_| Drawn::random(random, features, count, depth)).collect();
    (forest(features, count, drawn.iter().map(Drawn::flat).collect()).unwrap(), drawn, features)
}

fn random_rows(random: &mut Random, rows: usize, features: usize) -> Vec<Vec<f64>> {
    (0..rows).map(|_| (0..features).map(|_| random.value()).collect()).collect()
}

fn bits(scores: &Scores) -> Vec<u64> {
    (0..scores.rows()).flat_map(|row| scores.row(row).iter().map(|p| p.to_bits())).collect()
}

#[test]
fn scores_are_those_of_a_walk_to_the_bit() {
    for seed in 0..300 {
        let random = &mut Random::new(seed);
        let (flat, drawn, features) = random_forest(random);
        let count = random.below(200);
        let rows = random_rows(random, count, features);
        let scores = flat.score(&columns(&rows, features)).unwrap();
        assert_eq!(scores.rows(), rows.len());
        for (row, best) in (0..rows.len()).zip(scores.best()) {
            let mut expected = vec![0.0; flat.classes().len()];
            for tree in &drawn {
                expected.iter_mut().zip(tree.walk(&rows[row])).for_each(|(sum, share)| *sum += share);
            }
            expected.iter_mut().for_each(|sum| *sum /= drawn.len() as f64);
            assert_eq!(scores.row(row), expected, "seed {seed}, row {row}: {:?}", rows[row]);
            let first_of_the_greatest = expected.iter().position(|p| expected.iter().all(|other| other <= p)).unwrap();
            assert_eq!(best, first_of_the_greatest);
        }
    }
}

#[test]
fn scores_do_not_depend_on_how_rows_are_cut() {
    for seed in 0..50 {
        let random = &mut Random::new(seed);
        let (flat, _, features) = random_forest(random);
        let rows = random_rows(random, 300, features);
        let whole = columns(&rows, features);
        let mut pieces = vec![];
        let mut start = 0;
        while start < rows.len() {
            let length = (1 + random.below(100)).min(rows.len() - start);
            // A slice has an offset into its buffers, values and validity alike.
            let slice: Vec<ArrayRef> = whole.iter().map(|column| column.slice(start, length)).collect();
            pieces.extend(bits(&flat.score(&slice).unwrap()));
            start += length;
        }
        assert_eq!(pieces, bits(&flat.score(&whole).unwrap()), "seed {seed}");
    }
}

#[test]
fn json_gives_the_same_forest_to_the_bit() {
    for seed in 0..100 {
        let random = &mut Random::new(seed);
        let (flat, _, features) = random_forest(random);
        let flat = flat.with_metadata("made by", "a \"test\"\n");
        let json = flat.to_json();
        let read = FlatForest::from_json(&json).unwrap();
        assert_eq!(read, flat);
        assert_eq!(read.to_json(), json);
        let rows = columns(&random_rows(random, 50, features), features);
        assert_eq!(bits(&read.score(&rows).unwrap()), bits(&flat.score(&rows).unwrap()));
    }
}

/// A stump: less than 0.5 in feature 0 is class 0, else both alike; missing goes left.
fn stump() -> TreeForm {
    let shares = vec![1.0, 0.0, 0.5, 0.5];
    TreeForm { feature: vec![0, -1, -1], threshold: vec![0.5, 0.0, 0.0], left: vec![1, 0, 0], missing_left: vec![0], shares }
}

#[test]
fn the_durable_form_is_what_it_was() {
    let json = r#"{"format":"tidegate-forest","version":1,"metadata":{},"features":["f0"],"classes":{"integer":[0,1]},"trees":[{"feature":[0,-1,-1],"threshold":"0.5 0.0 0.0","left":[1,0,0],"missing_left":[0],"shares":"1.0 0.0 0.5 0.5"}]}"#;
    assert_eq!(FlatForest::from_json(json).unwrap(), forest(1, 2, vec![stump()]).unwrap());
    assert_eq!(forest(1, 2, vec![stump()]).unwrap().to_json(), json);
}

#[test]
fn random_mutations_are_read_or_refused() {
    let random = &mut Random::new(7);
    let json = random_forest(random).0.to_json();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = json.clone().into_bytes();
        for _ in 0..1 + random.below(3) {
            if bytes.is_empty() {
                break;
            }
            let place = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[place] = random.below(128) as u8,
                1 => bytes[place] = b"0123456789-.e,[]{}\" "[random.below(20)],
                2 => drop(bytes.remove(place)),
                _ => bytes.truncate(place),
            }
        }
        match FlatForest::from_json(&String::from_utf8_lossy(&bytes)) {
            // What is read can be scored.
            Ok(forest) => {
                let width = forest.features().len();
                let rows = random_rows(random, 3, width);
                assert!(bits(&forest.score(&columns(&rows, width)).unwrap()).iter().all(|&p| (0.0..=1.001).contains(&f64::from_bits(p))));
                read += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(read > 100 && refused > 10_000, "{read} read, {refused} refused");
}

#[test]
fn what_is_no_forest_is_refused_with_the_place() {
    let refused = |change: fn(&mut TreeForm)| {
        let mut tree = stump();
        change(&mut tree);
        forest(1, 2, vec![stump(), tree]).unwrap_err()
    };
    let at = |node, fault| ForestError::Node { tree: 1, node, fault };
    assert_eq!(refused(|tree| tree.left[0] = 0), at(0, NodeFault::Children { found: 0, expected: 1, nodes: 3 }));
    assert_eq!(refused(|tree| tree.left[0] = u32::MAX), at(0, NodeFault::Children { found: u32::MAX, expected: 1, nodes: 3 }));
    assert_eq!(refused(|tree| tree.feature[0] = 1), at(0, NodeFault::Feature(1)));
    assert_eq!(refused(|tree| tree.feature[0] = -2), at(0, NodeFault::Feature(-2)));
    assert!(matches!(refused(|tree| tree.threshold[0] = f64::NAN), ForestError::Node { fault: NodeFault::Threshold(_), .. }));
    assert_eq!(refused(|tree| tree.threshold[0] = f64::INFINITY), at(0, NodeFault::Threshold(f64::INFINITY)));
    assert_eq!(refused(|tree| tree.shares[2] = 0.6), at(2, NodeFault::ShareSum(1.1)));
    assert_eq!(refused(|tree| tree.shares[1] = -0.1), at(1, NodeFault::Share(-0.1)));
    assert_eq!(refused(|tree| tree.missing_left = vec![1]), at(1, NodeFault::MissingLeft));
    assert_eq!(refused(|tree| tree.missing_left = vec![0, 0]), at(0, NodeFault::MissingLeft));
    assert_eq!(refused(|tree| tree.missing_left = vec![9]), at(9, NodeFault::MissingLeft));
    // An inner node instead of a leaf needs children that aren't there, and one share less.
    assert_eq!(
        refused(|tree| {
            tree.feature[2] = 0;
            tree.left[2] = 0;
            tree.shares.truncate(2);
        }),
        at(2, NodeFault::Children { found: 0, expected: 3, nodes: 3 })
    );
    assert_eq!(
        refused(|tree| {
            tree.feature = vec![-1, -1];
            tree.threshold = vec![0.0; 2];
            tree.left = vec![0; 2];
            tree.missing_left = vec![];
        }),
        at(1, NodeFault::Unreachable)
    );
    assert!(refused(|tree| *tree = TreeForm::default()).to_string().contains("it has no nodes"));
    assert!(refused(|tree| tree.threshold.truncate(2)).to_string().starts_with("tree 1 of the forest: its arrays must have one entry a node"));
    assert!(refused(|tree| tree.shares.truncate(3)).to_string().contains("it has 3 shares, but 2 leaves of 2 classes"));

    assert_eq!(forest(1, 2, vec![]).unwrap_err().to_string(), "the forest has no trees");
    assert!(forest(0, 2, vec![stump()]).unwrap_err().to_string().contains("has 0 features"));
    assert!(forest(1, 1, vec![stump()]).unwrap_err().to_string().contains("must be two or more; there are 1"));
    let build = |features: &[&str], classes| {
        let features = features.iter().map(|name| name.to_string()).collect();
        FlatForest::new(features, classes, BTreeMap::new(), vec![stump()]).unwrap_err().to_string()
    };
    assert_eq!(build(&["a", "a"], classes(2)), "the forest has two features called 'a'");
    assert!(build(&["a"], Classes::Integer(vec![1, 0])).contains("ascending order"));
}

#[test]
fn json_of_something_else_is_refused() {
    let refused = |json: &str| FlatForest::from_json(json).unwrap_err();
    assert!(matches!(refused(""), ForestError::Json(_)));
    assert!(matches!(refused("[]"), ForestError::Json(_)));
    assert_eq!(refused(r#"{"format":"onnx","version":1}"#), ForestError::Format("onnx".into()));
    assert_eq!(refused(r#"{"format":"tidegate-forest","version":2,"new":{}}"#), ForestError::Version { found: 2, readable: 1 });
    let good = forest(1, 2, vec![stump()]).unwrap().to_json();
    assert!(matches!(refused(&good.replace("\"metadata\":{}", "\"metadata\":{},\"more\":1")), ForestError::Json(_)));
    assert!(refused(&good.replace("1.0 0.0 0.5", "1.0 zero 0.5")).to_string().contains("'zero' is no number"));
    assert!(matches!(refused(&good.replace("0.5 0.0 0.0", "nan 0.0 0.0")), ForestError::Node { fault: NodeFault::Threshold(_), .. }));
    assert!(matches!(refused(&"[".repeat(100_000)), ForestError::Json(_)));
}

#[test]
fn batches_are_scored_by_name() {
    let model = forest(2, 2, vec![stump()]).unwrap();
    let (first, other): (ArrayRef, ArrayRef) = (Arc::new(Float32Array::from(vec![Some(0.25), Some(0.5), None])), Arc::new(Float32Array::from(vec![0.0; 3])));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"; 3]));
    let batch = RecordBatch::try_from_iter([("f1", other.clone()), ("team", text.clone()), ("f0", first)]).unwrap();
    let scores = model.score_batch(&batch).unwrap();
    assert_eq!((scores.row(0), scores.row(1), scores.row(2)), (&[1.0, 0.0][..], &[0.5, 0.5][..], &[1.0, 0.0][..]));
    assert_eq!(scores.of_class(1).values(), &[0.0, 0.5, 0.0]);
    assert_eq!(scores.best().collect::<Vec<_>>(), [0, 0, 0], "of two alike the first");
    assert_eq!(scores.labels().as_primitive::<arrow::datatypes::Int64Type>().values(), &[0, 0, 0]);
    let lists = scores.to_lists();
    assert_eq!(lists.data_type(), &Scores::list_type(2));
    assert_eq!(lists.as_fixed_size_list().value(1).as_primitive::<Float64Type>().values(), &[0.5, 0.5]);

    let without = RecordBatch::try_from_iter([("f1", other.clone()), ("team", text.clone())]).unwrap();
    assert_eq!(model.score_batch(&without).unwrap_err().to_string(), "the model's feature 'f0' is not among the columns (f1, team)");
    let wrong = RecordBatch::try_from_iter([("f1", other), ("f0", text)]).unwrap();
    assert!(model.score_batch(&wrong).unwrap_err().to_string().starts_with("feature 'f0' is Utf8, not a number"));
}

#[test]
fn a_deep_tree_needs_no_stack() {
    // A list of 200,000 inner nodes: each sends what is less than its number left, into a leaf.
    let depth = 200_000;
    let mut tree = TreeForm { feature: vec![0], threshold: vec![0.0], left: vec![1], ..TreeForm::default() };
    for node in 1..=depth {
        let last = node == depth;
        tree.feature.extend([-1, if last { -1 } else { 0 }]);
        tree.threshold.extend([0.0, if last { 0.0 } else { node as f64 }]);
        tree.left.extend([0, if last { 0 } else { 2 * node as u32 + 1 }]);
        tree.shares.extend([1.0, 0.0]);
    }
    tree.shares.extend([0.0, 1.0]);
    let flat = FlatForest::from_json(&forest(1, 2, vec![tree]).unwrap().to_json()).unwrap();
    let scores = flat.score(&columns(&[vec![depth as f64 - 1.5], vec![depth as f64]], 1)).unwrap();
    assert_eq!(scores.best().collect::<Vec<_>>(), [0, 1]);
}
