mod rates;
mod replicas;
mod scripts;
mod server;
