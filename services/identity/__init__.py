"""Who people are, how they prove it, and what they may do: users, roles, sign-ins, API tokens and tenants."""
