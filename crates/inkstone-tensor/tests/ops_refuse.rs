//! Arguments that operations refuse before a device sees them.

use inkstone_tensor::ops::{self, Attention, Mask, Qkv};
use inkstone_tensor::{DType, Device, Error, Shape, Tensor, cpu};

fn zeros(rows: usize, cols: usize) -> Tensor {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    Tensor::from_f32(&device, &vec![0.0; rows * cols], Shape::matrix(rows, cols)).unwrap()
}

#[test]
fn attention_refuses_sequences_that_share_a_row() {
    let x = zeros(4, 8);
    let stream = Qkv { q: &x, k: &x, v: &x };
    let attend = |sequences: &[Vec<std::ops::Range<usize>>]| {
        let args = Attention {
            streams: &[stream],
            sequences,
            n_heads: 2,
            n_kv_heads: 2,
            scale: 0.5,
            mask: Mask::Full,
        };
        ops::attention(&args, DType::F32)
    };
    assert!(attend(&[vec![2..4], vec![0..2], vec![1..1]]).is_ok());
    let error = attend(&[vec![0..3], vec![2..4]]).unwrap_err();
    assert!(matches!(&error, Error::Range { what: "sequences", got, .. } if got == "row 2 twice"), "{error}");
}
