"""The reference protocol of FLamby on Fed-TCGA-BRCA (du Terrail et al., 2022), written anew."""
