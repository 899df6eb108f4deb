use tidegate_kernels::score::{Boosted, BoostedTree, Compare, DeviceModel, Forest, Linear, LinearForm, Link, Model, Tree, exp};

use super::{
    emulator,
    random::{BoostedArrays, Random, TreeArrays, features},
};

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn slices(columns: &[Vec<f64>]) -> Vec<&[f64]> {
    columns.iter().map(Vec::as_slice).collect()
}

/// Widths of rows that are staged in shared memory and of rows that are too wide for it.
fn any_width(random: &mut Random) -> usize {
    [1, 3, 16, 31, 33, 70][random.below(6)]
}

/// No row, one, and numbers around those of a block, here and on the device.
fn any_rows(random: &mut Random) -> usize {
    [0, 1, 63, 65, 127, 128, 129, 300][random.below(8)]
}

/// Features of which some lie on the spot where a tree decides, and some are hard to compare or to add.
fn hard_features(random: &mut Random, width: usize, rows: usize, thresholds: &[f64]) -> Vec<Vec<f64>> {
    let mut columns = features(random, width, rows);
    for cell in columns.iter_mut().flatten() {
        match random.below(8) {
            0 => *cell = thresholds[random.below(thresholds.len())],
            1 if random.once_in(2) => *cell = random.float(),
            2 if random.once_in(4) => *cell = [f64::INFINITY, f64::NEG_INFINITY][random.below(2)],
            _ => {}
        }
    }
    columns
}

#[test]
fn forests_score_as_their_reference() {
    let gpu = emulator::open(2);
    let mut random = Random(1);
    for round in 0..40 {
        emulator::seed(round);
        // Few and many classes.
        let (width, classes, rows) = (any_width(&mut random), 1 + random.below(6), any_rows(&mut random));
        let (trees, depth) = (1 + random.below(20), random.below(9));
        let arrays: Vec<TreeArrays> = (0..trees).map(|_| TreeArrays::random(&mut random, width, classes, depth)).collect();
        let forest = Forest::new(width, classes, arrays.iter().map(TreeArrays::tree)).unwrap();
        let columns = hard_features(&mut random, width, rows, &arrays[0].threshold);
        let scores = forest.score(&slices(&columns));
        let scored = DeviceModel::new(&gpu, &forest).unwrap().score(&slices(&columns)).unwrap();
        assert_eq!(bits(&scored), bits(&scores), "round {round}");
        for row in 0..rows {
            let shares = |class: usize| {
                let of_tree = |tree: &TreeArrays| {
                    let leaf = leaf_of(&columns, row, 0, &tree.feature, &tree.threshold, &tree.left, &tree.missing_left, Compare::Less);
                    tree.shares[leaf * classes + class]
                };
                arrays.iter().map(of_tree).fold(0.0, |sum, share| sum + share) / trees as f64
            };
            assert_eq!(bits(&scores[row * classes..][..classes]), bits(&(0..classes).map(shares).collect::<Vec<_>>()), "round {round}, row {row}");
        }
    }
}

/// The leaf that a row reaches, by its place among the leaves: the definition.
#[allow(clippy::too_many_arguments)]
fn leaf_of(columns: &[Vec<f64>], row: usize, node: usize, feature: &[i32], threshold: &[f64], left: &[u32], missing_left: &[u32], compare: Compare) -> usize {
    if feature[node] == -1 {
        return feature[..node].iter().filter(|&&feature| feature == -1).count();
    }
    let value = columns[feature[node] as usize][row];
    let goes_left = if value.is_nan() {
        missing_left.contains(&(node as u32))
    } else if compare == Compare::Less {
        value < threshold[node]
    } else {
        value <= threshold[node]
    };
    let next = left[node] as usize + usize::from(!goes_left);
    leaf_of(columns, row, next, feature, threshold, left, missing_left, compare)
}

/// Scores of margins: the definition, with our exponential.
fn linked(link: Link, margins: &[f64]) -> Vec<f64> {
    let scores = match link {
        Link::Identity => margins.to_vec(),
        Link::Sigmoid if margins[0] < 0.0 => vec![1.0 / (1.0 + exp(margins[0])), exp(margins[0]) / (1.0 + exp(margins[0]))],
        Link::Sigmoid => vec![exp(-margins[0]) / (1.0 + exp(-margins[0])), 1.0 / (1.0 + exp(-margins[0]))],
        Link::Softmax => {
            let most = margins.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = margins.iter().map(|margin| if *margin == most { 1.0 } else { exp(margin - most) }).collect();
            let sum = powers.iter().fold(0.0, |sum, power| sum + power);
            powers.iter().map(|power| power / sum).collect()
        }
    };
    scores.into_iter().map(|score: f64| if score.is_nan() { f64::NAN } else { score }).collect()
}

/// A link for so many margins.
fn any_link(random: &mut Random, margins: usize) -> Link {
    match (random.below(3), margins) {
        (0, _) => Link::Identity,
        (_, 1) => Link::Sigmoid,
        _ => Link::Softmax,
    }
}

#[test]
fn boosted_trees_score_as_their_reference() {
    let gpu = emulator::open(2);
    let mut random = Random(2);
    for round in 0..60 {
        emulator::seed(round);
        let (width, rows) = (any_width(&mut random), any_rows(&mut random));
        let margins = [1, 1, 2, 3, 5, 40][random.below(6)];
        let (trees, depth) = (random.below(24), random.below(8));
        let compare = if random.once_in(2) { Compare::Less } else { Compare::LessOrEqual };
        let link = any_link(&mut random, margins);
        let arrays: Vec<BoostedArrays> = (0..trees).map(|_| BoostedArrays::random(&mut random, width, margins, depth)).collect();
        // Margins at which exponentials are 0 are for some rounds only.
        let size = [1.0, 30.0, 1000.0][random.below(3)];
        let base: Vec<f64> = (0..margins).map(|_| (random.unit() - 0.5) * size).collect();
        let boosted = Boosted::new(width, compare, &base, link, arrays.iter().map(BoostedArrays::tree)).unwrap();
        let thresholds = arrays.first().map_or(&[0.5][..], |tree| &tree.threshold);
        let columns = hard_features(&mut random, width, rows, thresholds);
        let scores = boosted.score(&slices(&columns));
        let scored = DeviceModel::new(&gpu, &boosted).unwrap().score(&slices(&columns)).unwrap();
        assert_eq!(bits(&scored), bits(&scores), "round {round}");
        let outputs = boosted.outputs();
        assert_eq!(scores.len(), rows * outputs);
        for row in 0..rows {
            let mut sums = base.clone();
            for tree in &arrays {
                let leaf = leaf_of(&columns, row, 0, &tree.feature, &tree.threshold, &tree.left, &tree.missing_left, compare);
                sums[tree.output] += tree.values[leaf];
            }
            assert_eq!(bits(&scores[row * outputs..][..outputs]), bits(&linked(link, &sums)), "round {round}, row {row}");
        }
    }
}

#[test]
fn linear_models_score_as_their_reference() {
    let gpu = emulator::open(2);
    let mut random = Random(3);
    for round in 0..60 {
        emulator::seed(round);
        let (width, rows) = (any_width(&mut random), any_rows(&mut random));
        let margins = [1, 1, 2, 3, 4, 5, 8, 40][random.below(8)];
        let link = any_link(&mut random, margins);
        let size = [1.0, 10.0, 1e160][random.below(3)];
        let numbers = |random: &mut Random, count: usize| (0..count).map(|_| (random.unit() - 0.5) * size).collect::<Vec<f64>>();
        let (coefficients, intercepts) = (numbers(&mut random, width * margins), numbers(&mut random, margins));
        let perhaps = |random: &mut Random| if random.once_in(2) { numbers(random, width) } else { vec![] };
        let (mut fill, centre, scale) = (perhaps(&mut random), perhaps(&mut random), perhaps(&mut random));
        // Nothing to fill in for some feature.
        if random.once_in(2) && !fill.is_empty() {
            fill[random.below(width)] = f64::NAN;
        }
        let form = LinearForm { coefficients: &coefficients, intercepts: &intercepts, link, fill: &fill, centre: &centre, scale: &scale };
        let linear = Linear::new(width, &form).unwrap();
        // In half of the rounds nothing is missing or infinite.
        let columns = if random.once_in(2) { hard_features(&mut random, width, rows, &[0.0, -0.0]) } else { plain_features(&mut random, width, rows) };
        let scores = linear.score(&slices(&columns));
        let scored = DeviceModel::new(&gpu, &linear).unwrap().score(&slices(&columns)).unwrap();
        assert_eq!(bits(&scored), bits(&scores), "round {round}");
        let outputs = linear.outputs();
        for row in 0..rows {
            let input = |feature: usize| {
                let value = columns[feature][row];
                let value = if value.is_nan() { fill.get(feature).copied().unwrap_or(value) } else { value };
                (value - centre.get(feature).unwrap_or(&0.0)) / scale.get(feature).unwrap_or(&1.0)
            };
            let margin =
                |margin: usize| (0..width).fold(0.0, |sum, feature| sum + coefficients[margin * width + feature] * input(feature)) + intercepts[margin];
            let expected = linked(link, &(0..margins).map(margin).collect::<Vec<_>>());
            assert_eq!(bits(&scores[row * outputs..][..outputs]), bits(&expected), "round {round}, row {row}");
        }
    }
}

fn plain_features(random: &mut Random, width: usize, rows: usize) -> Vec<Vec<f64>> {
    (0..width).map(|_| (0..rows).map(|_| (random.unit() - 0.5) * 4.0).collect()).collect()
}

/// One feature that is its margin: the exponential, and both links, at every kind of number.
#[test]
fn links_are_the_references_at_every_number() {
    let gpu = emulator::open(1);
    let mut random = Random(4);
    let steps = (0..3000).map(|step| f64::from(step) * 0.5 - 750.0);
    let ends = [710.0, 709.782_712_893_384, 745.133_219_101_941_1, 745.133_219_101_941_2, 746.0, 0.5 * std::f64::consts::LN_2, 5e-324];
    let others = (0..3000).map(|_| random.float());
    let numbers: Vec<f64> = steps.chain(ends).chain(ends.map(|end| -end)).chain(others).collect();
    let empty = LinearForm { coefficients: &[1.0], intercepts: &[0.0], link: Link::Sigmoid, fill: &[], centre: &[], scale: &[] };
    for form in [empty, LinearForm { coefficients: &[1.0, 0.0], intercepts: &[0.0, 0.0], link: Link::Softmax, ..empty }] {
        let linear = Linear::new(1, &form).unwrap();
        let scored = DeviceModel::new(&gpu, &linear).unwrap().score(&[&numbers]).unwrap();
        assert_eq!(bits(&scored), bits(&linear.score(&[&numbers])));
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

const SPLIT: BoostedTree<'_> = BoostedTree {
    feature: &[0, -1, -1],
    threshold: &[2.0, f64::NAN, 0.0],
    left: &[1, 0, 0],
    missing_left: &[],
    categorical: &[],
    values: &[1.0, 10.0],
    output: 0,
};

#[test]
fn thresholds_divide_as_the_model_says() {
    let column = [2f64.next_down(), 2.0, 2f64.next_up(), f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let scores = |compare, tree| Boosted::new(1, compare, &[100.0], Link::Identity, [tree, tree]).unwrap().score(&[&column]);
    assert_eq!(scores(Compare::Less, SPLIT), [102.0, 120.0, 120.0, 120.0, 102.0, 120.0]);
    assert_eq!(scores(Compare::LessOrEqual, SPLIT), [102.0, 102.0, 120.0, 120.0, 102.0, 120.0]);
    assert_eq!(scores(Compare::LessOrEqual, BoostedTree { missing_left: &[0], ..SPLIT })[5], 102.0);
    // Both zeros are one, whichever the threshold is; and the number after the greatest is infinity.
    for (threshold, column) in [(0.0, [-0.0, 0.0]), (-0.0, [-0.0, 0.0]), (f64::MAX, [0.0, f64::MAX])] {
        let threshold = [threshold, 0.0, 0.0];
        let scores = |compare| Boosted::new(1, compare, &[0.0], Link::Identity, [BoostedTree { threshold: &threshold, ..SPLIT }]).unwrap().score(&[&column]);
        assert_eq!(scores(Compare::LessOrEqual), [1.0, 1.0]);
        assert_eq!(scores(Compare::Less)[1], 10.0);
    }
    // Without trees there is what was there before; three margins of three kinds.
    assert_eq!(Boosted::new(1, Compare::Less, &[0.5], Link::Identity, []).unwrap().score(&[&column]), [0.5; 6]);
    let second = BoostedTree { output: 1, ..SPLIT };
    let scores = Boosted::new(1, Compare::Less, &[0.0, 5.0, 7.0], Link::Identity, [second, SPLIT, second]).unwrap().score(&[&[0.0]]);
    assert_eq!(scores, [1.0, 7.0, 7.0]);
}

#[test]
fn missing_values_of_a_linear_model() {
    let form = LinearForm { coefficients: &[2.0, 0.0], intercepts: &[1.0], link: Link::Identity, fill: &[], centre: &[], scale: &[] };
    let columns: [&[f64]; 2] = [&[1.0, f64::NAN, 3.0, 4.0], &[5.0, 5.0, f64::NAN, f64::INFINITY]];
    let scores = |form: &LinearForm<'_>| bits(&Linear::new(2, form).unwrap().score(&columns));
    assert_eq!(scores(&form), bits(&[3.0, f64::NAN, f64::NAN, f64::NAN]));
    assert_eq!(scores(&LinearForm { fill: &[10.0, f64::NAN], ..form }), bits(&[3.0, 21.0, f64::NAN, f64::NAN]));
    assert_eq!(scores(&LinearForm { fill: &[10.0, 0.0], centre: &[8.0, 0.0], scale: &[4.0, 1.0], ..form }), bits(&[-2.5, 2.0, -1.5, f64::NAN]));
    let half = LinearForm { coefficients: &[0.0, 0.0], intercepts: &[0.0], link: Link::Sigmoid, ..form };
    assert_eq!(scores(&half), bits(&[0.5, 0.5, f64::NAN, f64::NAN, f64::NAN, f64::NAN, f64::NAN, f64::NAN]));
}

#[test]
fn what_is_no_forest() {
    let leaf = Tree { feature: &[-1], threshold: &[0.0], left: &[0], missing_left: &[], shares: &[0.5, 0.5] };
    let refused = |tree| Forest::new(2, 2, [leaf, tree]).unwrap_err().to_string();
    assert_eq!(Forest::new(2, 2, []).unwrap_err().to_string(), "the model has no tree");
    assert!(Forest::new(0, 2, [leaf]).is_err() && Forest::new(2, 0, [leaf]).is_err());
    let inner = Tree { feature: &[0, -1, -1], threshold: &[0.0; 3], left: &[1, 0, 0], missing_left: &[], shares: &[0.5; 4] };
    assert!(Forest::new(2, 2, [inner]).is_ok());
    assert_eq!(refused(Tree { feature: &[2, -1, -1], ..inner }), "tree 1 of the model: node 0 looks at feature 2");
    assert_eq!(refused(Tree { feature: &[-2, -1, -1], ..inner }), "tree 1 of the model: node 0 looks at feature -2");
    // A way back would never end.
    assert_eq!(refused(Tree { left: &[0, 0, 0], ..inner }), "tree 1 of the model: node 0 of 3 has its children at 0");
    assert_eq!(refused(Tree { left: &[2, 0, 0], ..inner }), "tree 1 of the model: node 0 of 3 has its children at 2");
    assert_eq!(refused(Tree { left: &[u32::MAX, 0, 0], ..inner }), "tree 1 of the model: node 0 of 3 has its children at 4294967295");
    assert!(refused(Tree { shares: &[0.5; 3], ..inner }).contains("don't fit together"));
    assert!(refused(Tree { threshold: &[], ..inner }).contains("don't fit together"));
    assert_eq!(refused(Tree { shares: &[0.5, f64::NAN, 0.5, 0.5], ..inner }), "tree 1 of the model: share 1 is NaN, not a finite number");
}

#[test]
fn what_are_no_boosted_trees() {
    let refused = |tree| Boosted::new(1, Compare::Less, &[0.0, 0.0], Link::Softmax, [SPLIT, tree]).unwrap_err().to_string();
    assert!(refused(BoostedTree { categorical: &[0], ..SPLIT }).starts_with("tree 1 of the model: node 0 splits by categories, which can't be scored;"));
    assert_eq!(refused(BoostedTree { output: 2, ..SPLIT }), "tree 1 of the model: it adds to output 2 of 2");
    assert!(refused(BoostedTree { threshold: &[f64::INFINITY, 0.0, 0.0], ..SPLIT }).contains("the threshold of node 0 is inf, not a finite number"));
    assert!(refused(BoostedTree { values: &[1.0, f64::NEG_INFINITY], ..SPLIT }).contains("the value of leaf 1 is -inf, not a finite number"));
    assert!(refused(BoostedTree { values: &[1.0], ..SPLIT }).contains("more leaves than values"));
    assert!(refused(BoostedTree { values: &[1.0; 3], ..SPLIT }).contains("more values of leaves than leaves"));
    assert!(refused(BoostedTree { feature: &[1, -1, -1], ..SPLIT }).contains("node 0 looks at feature 1"));
    assert!(refused(BoostedTree { left: &[2, 0, 0], ..SPLIT }).contains("node 0 of 3 has its children at 2"));
    for missing_left in [&[1][..], &[3], &[0, 0], &[2, 0]] {
        assert!(refused(BoostedTree { missing_left, ..SPLIT }).contains("missing values can't go left at node"), "{missing_left:?}");
    }
    let whole = |base: &[f64], link| Boosted::new(1, Compare::Less, base, link, [SPLIT]).unwrap_err().to_string();
    assert!(whole(&[], Link::Identity).contains("is for 1 features and 0 outputs"));
    assert!(whole(&[f64::NAN], Link::Identity).contains("number 0 is NaN"));
    assert!(whole(&[0.0], Link::Softmax).contains("a softmax is made of two or more"));
    assert!(whole(&[0.0, 0.0], Link::Sigmoid).contains("a sigmoid is made of one"));
}

#[test]
fn what_is_no_linear_model() {
    let form = LinearForm { coefficients: &[1.0, 2.0], intercepts: &[1.0], link: Link::Identity, fill: &[], centre: &[], scale: &[] };
    let refused = |form: LinearForm<'_>| Linear::new(2, &form).unwrap_err().to_string();
    assert!(Linear::new(2, &form).is_ok());
    assert_eq!(refused(LinearForm { coefficients: &[1.0], ..form }), "the model has 1 coefficients for 2 features and 1 outputs");
    assert_eq!(refused(LinearForm { intercepts: &[], ..form }), "the model is for 2 features and 0 outputs");
    assert_eq!(refused(LinearForm { fill: &[1.0], ..form }), "the model has 1 numbers to fill its 2 features");
    assert_eq!(refused(LinearForm { fill: &[1.0, f64::INFINITY], ..form }), "the model fills feature 1 with inf");
    assert_eq!(refused(LinearForm { scale: &[1.0, 0.0], ..form }), "the model divides feature 1 by 0; a feature of one value is divided by 1");
    for odd in [
        LinearForm { coefficients: &[1.0, f64::NAN], ..form },
        LinearForm { intercepts: &[f64::INFINITY], ..form },
        LinearForm { centre: &[0.0, f64::NAN], ..form },
        LinearForm { scale: &[1.0, f64::INFINITY], ..form },
    ] {
        assert!(refused(odd).contains("not a finite number"));
    }
    assert!(refused(LinearForm { link: Link::Softmax, ..form }).contains("a softmax is made of two or more"));
}

#[test]
fn columns_that_do_not_fit_are_refused() {
    let gpu = emulator::open(1);
    let boosted = Boosted::new(2, Compare::Less, &[0.0], Link::Sigmoid, [SPLIT]).unwrap();
    let on_device = DeviceModel::new(&gpu, &boosted).unwrap();
    assert!(on_device.score(&[&[0.0]]).unwrap_err().to_string().contains("takes 2 columns of one length"));
    assert!(on_device.score(&[&[0.0], &[]]).is_err());
    // Models of all kinds behind one type.
    let models: [Box<dyn Model>; 2] = [Box::new(boosted.clone()), Box::new(boosted)];
    for model in &models {
        assert_eq!((model.width(), model.outputs()), (2, 2));
        assert_eq!(DeviceModel::new(&gpu, model.as_ref()).unwrap().score(&[&[0.0], &[0.0]]).unwrap(), model.score(&[&[0.0], &[0.0]]));
    }
}
