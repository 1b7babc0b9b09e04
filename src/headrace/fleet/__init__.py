"""Settings that are stored in Redis for all processes: written in versions, taken live, and tried before they stay."""
