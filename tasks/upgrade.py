"""`python -m tasks.upgrade`: brings the tables of DATABASE_URL up to date."""

from tasks.db.migrate import main

if __name__ == "__main__":
    main()
