"""A world model as a lossless codec of its tokens: python -m worldmodel.codec --help"""
