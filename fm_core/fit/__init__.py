"""Training: data of any kind (`data`), the loop (`trainer`), averages (`ema`), saved pipelines (`checkpoint`)."""
