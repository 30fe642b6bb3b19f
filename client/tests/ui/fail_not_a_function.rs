use allhands::delayed;

unsafe fn dangerous(n: u8) -> u8 {
    n
}

extern "C" fn foreign(n: u8) -> u8 {
    n
}

fn nine(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}

fn main() {
    delayed(dangerous)(1);
    delayed(foreign)(1);
    delayed(nine)(1, 2, 3, 4, 5, 6, 7, 8, 9);
}
