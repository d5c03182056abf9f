use super::*;
use crate::ops::{self, Activation};
use crate::{DType, Device, Pages, Shape, Storage, Tensor, Weight, cpu};

fn counting() -> (Device, Arc<Ledger>) {
    let options = cpu::Options { threads: Some(2), isa: Some("scalar".into()) };
    Device::cpu(&options).unwrap().counting().unwrap()
}

#[test]
fn the_pool_keeps_what_is_dropped_until_it_is_trimmed() {
    let (device, ledger) = counting();
    let tensor = |cols: usize| Tensor::empty(&device, DType::F32, Shape::vector(cols)).unwrap();
    let before = ledger.now().total_bytes();
    drop(tensor(1000));
    assert_eq!(ledger.now().pool_bytes, 4032, "4000 bytes in lines of 64");
    let again = tensor(1000);
    assert_eq!(ledger.now().pool_bytes, 4032, "used again");
    let other = tensor(16);
    device.trim();
    assert_eq!(ledger.now().pool_bytes, 4032 + 64, "what is in use stays");
    drop((again, other));
    device.trim();
    assert_eq!(ledger.now().total_bytes(), before);
    assert_eq!(ledger.peak().pool_bytes, 4032 + 64);
}

#[test]
fn pages_count_when_they_are_touched_until_they_are_released() {
    let (device, ledger) = counting();
    let (rows, cols) = (256, 1024);
    let file = ledger.file(2 * rows * cols * 4);
    let matrix = |i: usize| {
        let bytes = rows * cols * 4;
        let storage = Storage::Counted(file.range(i * bytes..(i + 1) * bytes));
        Tensor::from_storage(&device, storage, DType::F32, Shape::matrix(rows, cols)).unwrap()
    };
    let weights = [matrix(0), matrix(1)];
    assert_eq!(ledger.now().mapped_bytes, 0, "nothing is read at load");
    let x = Tensor::empty(&device, DType::F32, Shape::matrix(3, cols)).unwrap();
    ledger.begin();
    let product = |weight: &Tensor| {
        ops::linear(&x, &Weight::Dense(weight.clone()), None, Activation::None, DType::F32).unwrap()
    };
    let y = product(&weights[0]);
    assert_eq!((y.rows(), y.cols()), (3, rows));
    assert_eq!(ledger.now().mapped_bytes, rows * cols * 4, "one of the two");
    assert!((ledger.products().linear - (3 * rows * cols) as f64).abs() < 0.5);
    product(&weights[0]);
    assert_eq!(ledger.now().mapped_bytes, rows * cols * 4, "the same pages");
    let mut pages = Pages::default();
    pages.add(&weights[0]);
    pages.release();
    assert_eq!(ledger.now().mapped_bytes, 0);
    product(&weights[1]);
    drop((weights, pages, file));
    assert_eq!(ledger.now().mapped_bytes, 0, "unmapped");
    assert_eq!(ledger.peak().mapped_bytes, rows * cols * 4);
}

#[test]
fn what_multiplies_nothing_is_counted_by_its_results() {
    let (device, ledger) = counting();
    let x = Tensor::empty(&device, DType::F32, Shape::matrix(3, 70)).unwrap();
    let weight = Tensor::empty(&device, DType::F32, Shape::vector(70)).unwrap();
    ledger.begin();
    let normed = ops::rms_norm(&x, &weight, 1e-6, DType::Bf16).unwrap();
    ops::convert(&normed, DType::F32).unwrap();
    let done = ledger.products();
    assert_eq!((done.elements, done.total()), (2.0 * 3.0 * 70.0, 0.0));
}

#[test]
fn held_memory_counts_while_it_is_held() {
    let (_, ledger) = counting();
    let before = ledger.now().owned_bytes;
    let held = ledger.hold(12345);
    assert_eq!(ledger.now().owned_bytes, before + 12345);
    drop(held);
    assert_eq!(ledger.now().owned_bytes, before);
}

/// Buffers of the pool may have padded rows; files have none.
#[test]
fn stand_ins_count_where_they_say() {
    let (device, ledger) = counting();
    let cols = 4096; // rows of so many f32 are padded
    let matrix = Tensor::empty(&device, DType::F32, Shape::matrix(3, cols)).unwrap();
    assert!(matrix.row_stride() > cols);
    let mut stand_ins = StandIns::new(&device, &ledger);
    let before = ledger.now();
    let filed = stand_ins.filed_like(&matrix).unwrap();
    assert_eq!(ledger.now(), before, "nothing is read at load");
    filed.count_read();
    assert_eq!(ledger.now().mapped_bytes - before.mapped_bytes, AROUND_BYTES, "49152 bytes, in whole pieces");
    let held = stand_ins.held_like(&filed).unwrap();
    held.count_read();
    assert_eq!(ledger.now().owned_bytes, before.owned_bytes, "it was there before");
    assert_eq!(ledger.now().mapped_bytes - before.mapped_bytes, AROUND_BYTES);
}
