"""Headrace: a job queue on Redis or Valkey that stays steady under load, and can prove it."""
