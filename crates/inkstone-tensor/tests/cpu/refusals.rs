//! Arguments that do not fit, with and without the checks of `ops`.

use inkstone_tensor::{
    AlignedBuffer, Backend, DType, Device, Error, Shape, Storage, Tensor, Weight, cpu, ops,
};

#[test]
fn weights_that_are_no_floats_are_refused() {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let bytes = AlignedBuffer::zeroed(6).unwrap();
    let weight =
        Tensor::from_storage(&device, Storage::Owned(bytes), DType::U8, Shape::matrix(2, 3)).unwrap();
    let x = Tensor::from_f32(&device, &[1.0; 3], Shape::matrix(1, 3)).unwrap();
    let error = ops::linear(&x, &Weight::Dense(weight), None, ops::Activation::None, DType::F32).unwrap_err();
    assert!(matches!(error, Error::DType { what: "weight", got: DType::U8, .. }), "{error}");
}

#[test]
fn lines_of_another_picture_are_refused_above_a_strip() {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let ones = |shape: Shape| Tensor::from_f32(&device, &vec![1.0; shape.count()], shape).unwrap();
    let weight = ops::ConvWeight { matrix: Weight::Dense(ones(Shape::matrix(2, 27))), kernel: 3 };
    let (x, bias) = (ones(Shape::nhwc(1, 4, 5, 3)), ones(Shape::vector(2)));
    let run = |above: &Tensor| {
        let window = ops::Window { above: Some(above), ..ops::Window::whole(ops::Padding::all(1)) };
        ops::conv2d(&x, &weight, &bias, window, DType::F32)
    };
    assert_eq!(run(&ones(Shape::nhwc(1, 2, 5, 3))).unwrap().shape(), &Shape::nhwc(1, 6, 5, 2));
    let bf16 = ops::convert(&ones(Shape::nhwc(1, 2, 5, 3)), DType::Bf16).unwrap();
    for wrong in
        [ones(Shape::nhwc(1, 2, 4, 3)), ones(Shape::nhwc(2, 1, 5, 3)), ones(Shape::matrix(10, 3)), bf16]
    {
        let error = run(&wrong).unwrap_err();
        assert!(matches!(error, Error::Shape { what: "above", .. }), "{error}");
    }
}

#[test]
fn a_kernel_that_doubles_has_four_rows_a_channel_and_no_stride() {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let ones = |shape: Shape| Tensor::from_f32(&device, &vec![1.0; shape.count()], shape).unwrap();
    let run = |rows: usize, kernel: usize, stride: usize| {
        let matrix = Weight::Dense(ones(Shape::matrix(rows, kernel * kernel * 3)));
        let weight = ops::ConvWeight { matrix, kernel };
        let window = ops::Window { stride, ..ops::Window::whole(ops::Padding::all(1)) };
        let (x, bias) = (ones(Shape::nhwc(1, 4, 5, 3)), ones(Shape::vector(2)));
        ops::conv2d(&x, &weight, &bias, window, DType::F32)
    };
    assert_eq!(run(8, 2, 1).unwrap().shape(), &Shape::nhwc(1, 8, 10, 2));
    for (rows, kernel, stride, wrong) in [
        (8, 2, 2, "stride"),
        (9, 2, 1, "rows"),
        (2, 3, 3, "stride"),
        (2, 0, 1, "kernel"),
        (2, 4, 1, "kernel"),
    ] {
        let error = run(rows, kernel, stride).unwrap_err();
        assert!(matches!(error, Error::Range { what, .. } if what == wrong), "{error}");
    }
}

/// A device's methods are public: arguments that `ops` would refuse must not reach beyond a buffer.
#[test]
#[should_panic(expected = "a kernel counts on 4096")]
fn a_kernel_called_without_checks_panics_on_rows_that_do_not_fit() {
    let cpu = cpu::Cpu::new(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let device = Device::from_backend(std::sync::Arc::new(cpu));
    let vector = |len: usize| Tensor::from_f32(&device, &vec![1.0; len], Shape::matrix(1, len)).unwrap();
    let (x, weight, mut out) = (vector(4096), vector(4), vector(4096));
    let cpu = cpu::Cpu::new(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    cpu.rms_norm(&ops::RmsNorm { x: &x, weight: &weight, eps: 1e-6 }, &mut out).unwrap();
}
