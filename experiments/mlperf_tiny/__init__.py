"""MLPerf Tiny's image classification: its networks, distilled and quantized, and its reference files beside."""
