mod replicas;
mod scripts;
mod server;
