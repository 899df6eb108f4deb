use tidegate_kernels::forest::{DeviceForest, Forest, Tree};

use super::{
    emulator,
    random::{Random, TreeArrays, features},
};

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn scores_are_the_references() {
    let gpu = emulator::open(2);
    let mut random = Random(1);
    for round in 0..40 {
        emulator::seed(round);
        // Few and many classes; rows that are staged in shared memory and rows that are too wide for it.
        let (width, classes) = ([1, 3, 16, 31, 33, 70][random.below(6)], 1 + random.below(6));
        let (trees, rows) = (1 + random.below(20), [0, 1, 127, 128, 129, 300][random.below(6)]);
        let depth = random.below(9);
        let arrays: Vec<TreeArrays> = (0..trees).map(|_| TreeArrays::random(&mut random, width, classes, depth)).collect();
        let forest = Forest::new(width, classes, arrays.iter().map(TreeArrays::tree)).unwrap();
        let mut columns = features(&mut random, width, rows);
        // Values on the spot where a tree decides, and ones that are hard to compare.
        for column in columns.iter_mut().filter(|column| !column.is_empty()) {
            let at = random.below(column.len());
            column[at] = if random.once_in(2) { arrays[0].threshold[random.below(arrays[0].threshold.len())] } else { random.float() };
        }
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let scored = DeviceForest::new(&gpu, &forest).unwrap().score(&columns).unwrap();
        assert_eq!(bits(&scored), bits(&forest.score(&columns)), "round {round}");
    }
}

#[test]
fn the_reference_is_the_definition() {
    // One tree that asks for feature 1 and lets missing values go left, one that lets them go right, one of a leaf alone.
    let shares = [0.25, 0.75, 1.0, 0.0];
    let asks = |missing_left: &'static [u32]| Tree { feature: &[1, -1, -1], threshold: &[2.0, 0.0, 0.0], left: &[1, 0, 0], missing_left, shares: &shares };
    let leaf = Tree { feature: &[-1], threshold: &[0.0], left: &[0], missing_left: &[], shares: &[0.5, 0.5] };
    let forest = Forest::new(2, 2, [asks(&[0]), asks(&[]), leaf]).unwrap();
    let first = [0.0; 4];
    let second = [1.0, 2.0, f64::NAN, f64::NEG_INFINITY];
    let left = (0.25 + 0.25 + 0.5) / 3.0;
    let scores = forest.score(&[&first, &second]);
    assert_eq!(scores.chunks(2).map(|row| row[0]).collect::<Vec<_>>(), [left, (1.0 + 1.0 + 0.5) / 3.0, (0.25 + 1.0 + 0.5) / 3.0, left]);
}

#[test]
fn what_is_no_forest() {
    let leaf = Tree { feature: &[-1], threshold: &[0.0], left: &[0], missing_left: &[], shares: &[0.5, 0.5] };
    let refused = |tree| Forest::new(2, 2, [leaf, tree]).unwrap_err().to_string();
    assert!(Forest::new(2, 2, []).unwrap_err().to_string().contains("there is no tree"));
    assert!(Forest::new(0, 2, [leaf]).is_err() && Forest::new(2, 0, [leaf]).is_err());
    let inner = Tree { feature: &[0, -1, -1], threshold: &[0.0; 3], left: &[1, 0, 0], missing_left: &[], shares: &[0.5; 4] };
    assert!(Forest::new(2, 2, [inner]).is_ok());
    assert_eq!(refused(Tree { feature: &[2, -1, -1], ..inner }), "tree 1 of the forest: node 0 looks at feature 2");
    assert_eq!(refused(Tree { feature: &[-2, -1, -1], ..inner }), "tree 1 of the forest: node 0 looks at feature -2");
    // A way back would never end.
    assert_eq!(refused(Tree { left: &[0, 0, 0], ..inner }), "tree 1 of the forest: node 0 of 3 has its children at 0");
    assert_eq!(refused(Tree { left: &[2, 0, 0], ..inner }), "tree 1 of the forest: node 0 of 3 has its children at 2");
    assert_eq!(refused(Tree { left: &[u32::MAX, 0, 0], ..inner }), "tree 1 of the forest: node 0 of 3 has its children at 4294967295");
    assert!(refused(Tree { shares: &[0.5; 3], ..inner }).contains("don't fit together"));
    assert!(refused(Tree { threshold: &[], ..inner }).contains("don't fit together"));
}
