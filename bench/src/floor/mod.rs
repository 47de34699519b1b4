mod buffers;
mod downstream;
mod proxy;
mod response;
