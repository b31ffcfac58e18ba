//! linc
fn main(){}
