"""Influence functions of Koh & Liang (ICML 2017)."""
