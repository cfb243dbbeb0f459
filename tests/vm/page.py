def written(results): return ""
