"""Bars and recent trades: what prices were. Pure values and builders."""
