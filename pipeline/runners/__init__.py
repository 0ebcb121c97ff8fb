"""Where graphs run: this machine, Flink, Spark, Prism, Dataflow."""
