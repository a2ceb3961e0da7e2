"""Fed-TCGA-BRCA protocol of FLamby: strategies and heads."""
