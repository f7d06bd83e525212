//! Kubernetes resource quantities.

/// A resource quantity as written, with its value in thousandths.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// As the user wrote it; this is what Kubernetes gets.
    pub text: String,
    /// The value in thousandths (`250m` is 250, `1Gi` is 1,073,741,824,000), rounded up, never negative.
    pub milli: i128,
}
