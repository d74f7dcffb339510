"""Dumps of MediaWiki, such as those of Wikipedia, to plain text."""
