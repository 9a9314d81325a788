"""Catalogs, runs and pixels of another machine, asked of the server there.

A run stands on the two protocols of `read.origin` here as it does at home; only where documents and pixels come
from differs. Knows addresses and answers; nothing here touches a file.
"""
