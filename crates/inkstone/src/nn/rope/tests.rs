use inkstone_tensor::cpu;

use super::*;

fn device() -> Device {
    Device::cpu(&cpu::Options::default()).unwrap()
}

/// With one pair an axis the first frequency is 1, so the table's angles are the positions themselves.
fn positions(rope: &Rope) -> Vec<[f32; 3]> {
    let (cos, sin) = (rope.cos.to_f32().unwrap(), rope.sin.to_f32().unwrap());
    let angle = |i: usize| sin[i].atan2(cos[i]).round();
    (0..cos.len() / 3).map(|row| [angle(3 * row), angle(3 * row + 1), angle(3 * row + 2)]).collect()
}

#[test]
fn rows_and_columns_are_counted_from_the_centre() {
    let rope = AxialRope::new([2, 2, 2], 10_000.0);
    let grids = [Grid { height: 2, width: 3 }, Grid { height: 1, width: 1 }];
    let table = rope.pictures(&grids, &device()).unwrap();
    let want = [
        [0.0, -1.0, -2.0],
        [0.0, -1.0, -1.0],
        [0.0, -1.0, 0.0],
        [0.0, 0.0, -2.0],
        [0.0, 0.0, -1.0],
        [0.0, 0.0, 0.0],
        [1.0, -1.0, -1.0],
    ];
    assert_eq!(positions(&table), want);
}

#[test]
fn every_prompt_starts_behind_the_largest_picture() {
    let rope = AxialRope::new([2, 2, 2], 10_000.0);
    let grids = [Grid { height: 2, width: 2 }, Grid { height: 1, width: 5 }];
    let table = rope.prompts(&[2, 1], &grids, &device()).unwrap();
    assert_eq!(positions(&table), [[2.0; 3], [3.0; 3], [2.0; 3]]);
}

#[test]
fn text_of_a_language_model_starts_at_zero() {
    let table = text(&[2, 1], 2, 1e6, &device()).unwrap();
    let sin = table.sin.to_f32().unwrap();
    assert_eq!(table.layout, RopeLayout::Halves);
    assert_eq!(sin, [0.0, 1f32.sin(), 0.0]);
}

#[test]
fn no_tokens_give_an_empty_table() {
    let table = text(&[], 8, 1e6, &device()).unwrap();
    assert_eq!(table.cos.shape(), &Shape::matrix(0, 4));
}
